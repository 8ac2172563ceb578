"""Models and optimizers that another thread is at work with are left alone when owners are looked at."""

from __future__ import annotations

import threading
from collections.abc import Callable

from memtrace.hooks.ownership.users import Users

MODEL, OPTIMIZER, OTHER = object(), object(), object()


def in_thread(function: Callable[[], None]) -> int:
    """Run a function in a thread of its own, and return which that was."""
    ran: list[int] = []
    thread = threading.Thread(target=lambda: (ran.append(threading.get_ident()), function()))
    thread.start()
    thread.join()
    return ran[0]


def test_what_another_thread_uses_is_left_out_while_that_is_busy() -> None:
    busy: set[int] = set()
    users = Users(lambda: frozenset(busy))
    users.used(MODEL)
    other = in_thread(lambda: users.used(OTHER))
    assert users.look([MODEL, OTHER], [OPTIMIZER]) == [[MODEL, OTHER], [OPTIMIZER]]
    busy.add(other)
    # However long ago: it may be in the midst of a step that takes long.
    for _ in range(9):
        assert users.look([MODEL, OTHER], [OPTIMIZER]) == [[MODEL], [OPTIMIZER]]
    busy.clear()
    assert users.look([MODEL, OTHER]) == [[MODEL, OTHER]]


def test_what_another_thread_made_is_looked_at_once_this_one_has_used_it_for_a_while() -> None:
    busy: set[int] = set()
    users = Users(lambda: frozenset(busy))
    busy.add(in_thread(lambda: users.used(MODEL)))
    found = []
    for _ in range(5):
        users.used(MODEL)
        found.append(users.look([MODEL]) == [[MODEL]])
    assert found == [False, False, True, True, True]


def test_with_one_thread_nobody_is_asked_which_are_busy() -> None:
    def never() -> frozenset[int]:
        raise AssertionError

    users = Users(never)
    users.used(MODEL)
    assert users.look([MODEL]) == [[MODEL]]
