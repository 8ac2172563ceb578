"""Events of a recorder that does not see everything: what the running total tells, and what it cannot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memtrace.schema.tables import EVENTS
from memtrace.store.columns import NULL
from memtrace.store.reconcile import Reconciled, reconcile

ALLOC, FREE = 1, 0
Move = tuple[int, int, int, int]
"""Action, address, size, total after it."""


def reconciled(moves: Sequence[Move]) -> Reconciled:
    """Return these events made consistent."""
    columns = {name: np.zeros(len(moves), np.int64) for name in EVENTS.column_names()}
    for at, name in enumerate(("action", "address", "size_bytes", "total_bytes")):
        columns[name] = np.array([move[at] for move in moves], np.int64)
    return reconcile(columns, alloc=ALLOC, free=FREE)


def shown(whole: Reconciled) -> list[tuple[int, int, int]]:
    """Return action, address and size of each event."""
    return list(zip(*(whole.columns[name].tolist() for name in ("action", "address", "size_bytes")), strict=True))


def test_a_free_stands_where_the_total_fell() -> None:
    whole = reconciled([(ALLOC, 1, 100, 100), (ALLOC, 2, 8, 108), (FREE, 2, 8, 0), (ALLOC, 3, 8, 8), (FREE, 3, 8, 0)])
    assert shown(whole)[2:4] == [(FREE, 1, 100), (FREE, 2, 8)]
    assert whole.num_frees_not_seen == 1


def test_without_a_fall_the_free_stands_before_the_next_alloc_at_its_address() -> None:
    whole = reconciled([(ALLOC, 1, 100, NULL), (ALLOC, 2, 8, NULL), (ALLOC, 1, 50, NULL)])
    assert shown(whole) == [(ALLOC, 1, 100), (ALLOC, 2, 8), (FREE, 1, 100), (ALLOC, 1, 50)]


def test_a_block_that_lives_on_is_not_freed_for_what_another_thread_had() -> None:
    # 100 bytes come and go unseen, and a block of 100 bytes lives to the end.
    moves = [(ALLOC, 1, 100, 100), *((action, 2, 8, 100 + 8 * action) for _ in range(8) for action in (ALLOC, FREE))]
    rise = [*moves, (ALLOC, 3, 8, 208), (FREE, 3, 8, 200), (ALLOC, 3, 8, 108), (FREE, 3, 8, 100)]
    assert shown(reconciled(rise)) == [move[:3] for move in rise]


def test_events_that_changed_places_free_nothing() -> None:
    moves = [(ALLOC, 1, 100, 100), (ALLOC, 2, 100, 200), *((action, 3, 8, 200 + 8 * action) for action in (1, 0) * 4)]
    # The free of block 2 was written before an event of another thread that came before it.
    swapped = [*moves, (ALLOC, 4, 8, 108), (FREE, 2, 100, 100), (FREE, 4, 8, 100)]
    assert shown(reconciled(swapped)) == [move[:3] for move in swapped]


def test_totals_of_whole_blocks_tell_nothing() -> None:
    moves = [(ALLOC, 1, 512, 512), (ALLOC, 2, 8, 1024), (FREE, 2, 8, 512), (ALLOC, 3, 100, 1024), (FREE, 3, 100, 0)]
    assert shown(reconciled(moves)) == [move[:3] for move in moves]


@given(st.lists(st.tuples(st.sampled_from(["alloc", "free", "free unseen"]), st.integers(0, 30)), max_size=60))
def test_blocks_freed_unseen_are_freed_when_they_were(steps: list[tuple[str, int]]) -> None:
    live: dict[int, int] = {}
    moves: list[Move] = []
    unseen = 0
    for number, (what, chosen) in enumerate(steps):
        if what == "alloc" or not live:
            # Each size is another, so that a fall of the total names its block.
            live[number] = 1000 + 2**number if number < 40 else 1000 + number
            moves.append((ALLOC, number, live[number], sum(live.values())))
            continue
        address = sorted(live)[chosen % len(live)]
        size = live.pop(address)
        if what == "free":
            moves.append((FREE, address, size, sum(live.values())))
        else:
            unseen += 1
            # Something is seen between two unseen frees, or they would look like one of both sizes.
            moves += [
                (ALLOC, 10_000 + number, 1, sum(live.values()) + 1),
                (FREE, 10_000 + number, 1, sum(live.values())),
            ]
    if unseen > len(moves) // 8:
        return
    whole = reconciled(moves)
    running = np.cumsum(np.where(whole.columns["action"] == ALLOC, 1, -1) * whole.columns["size_bytes"])
    known = whole.columns["total_bytes"] != NULL
    assert running[known].tolist() == whole.columns["total_bytes"][known].tolist()
    assert whole.num_frees_not_seen == unseen
