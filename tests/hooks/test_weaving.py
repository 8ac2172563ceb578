"""Callbacks in the code of a function: called around it, and seen by nobody."""

from __future__ import annotations

import inspect
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest
import torch

from memtrace.hooks.torch_side.weaving import Woven, weave
from tests.hooks import woven_functions as functions

Seen = list[tuple[Any, ...]]


class Calls:
    """What callbacks were called with."""

    def __init__(self) -> None:
        self.seen: Seen = []

    def before(self, *args: Any, **kwargs: Any) -> None:
        """Note a call that begins."""
        self.seen.append(("before", *args, kwargs))

    def after(self, *args: Any, **kwargs: Any) -> None:
        """Note one that has ended."""
        self.seen.append(("after", *args, kwargs))


@pytest.fixture
def calls() -> Calls:
    """No calls yet."""
    return Calls()


def put_in(function: Any, calls: Calls, **settings: Any) -> Woven:
    """Weave the callbacks into a function."""
    woven = weave(function, calls.before, calls.after, **settings)
    assert woven is not None
    woven.put_in()
    return woven


@pytest.fixture
def weaves() -> Iterator[Callable[..., None]]:
    """Weaves callbacks into functions, and takes all out again."""
    done: list[Woven] = []
    yield lambda *args, **settings: done.append(put_in(*args, **settings))
    for woven in done:
        woven.take_out()


def test_callbacks_run_around_the_body_with_all_arguments(calls: Calls, weaves: Callable[..., None]) -> None:
    weaves(functions.of_all_kinds, calls)
    assert functions.of_all_kinds(1, 2, 3, four=4, five=5) == [1, 2, (3,), 4, {"five": 5}]
    given = (1, 2, 3, {"four": 4, "five": 5})
    assert calls.seen == [("before", *given), ("after", *given)]


@pytest.mark.filterwarnings("ignore:of the caller")
def test_the_last_callback_comes_after_an_exception_too_and_is_told_the_result(
    calls: Calls, weaves: Callable[..., None]
) -> None:
    weaves(functions.Holder.half, calls, given=("number",), with_result=True)
    assert functions.Holder().half(4) == 2
    with pytest.raises(ValueError, match="odd"):
        functions.Holder().half(3)
    assert [one[:-1] for one in calls.seen] == [("before", 4), ("after", 4, 2), ("before", 3), ("after", 3, None)]


def test_nothing_of_it_can_be_seen(calls: Calls, weaves: Callable[..., None]) -> None:
    held, half = functions.Holder(), functions.Holder.half

    def looks() -> list[Any]:
        found: list[Any] = [inspect.getsource(half), inspect.getsourcefile(half), inspect.signature(half)]
        found += [
            half.__code__.co_firstlineno,
            half.__code__.co_filename,
            half.__doc__,
            half.__qualname__,
            held.depth(),
        ]
        found.append(pickle.loads(pickle.dumps(half)) is functions.Holder.half is half)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                held.half(3)
            except ValueError as error:
                found.append([(one.name, one.lineno) for one in traceback.extract_tb(error.__traceback__)][1:])
        found.append([(one.filename, one.lineno) for one in caught])
        return found

    bare = looks()
    for function in (half, functions.Holder.depth):
        weaves(function, calls)
    assert looks() == bare
    assert len(calls.seen) == 4


def test_what_compiles_reads_none_of_the_callbacks(calls: Calls, weaves: Callable[..., None]) -> None:
    weaves(functions.double, calls)
    compiled = torch.compile(functions.double, backend="eager", fullgraph=True)
    assert compiled(torch.ones(1)).item() == 2
    assert calls.seen == []


def test_taking_it_out_leaves_the_very_code(calls: Calls) -> None:
    code = functions.double.__code__
    woven = put_in(functions.double, calls)
    assert functions.double.__code__ is not code
    woven.take_out()
    assert functions.double.__code__ is code


def test_a_code_that_the_program_put_there_since_is_left(calls: Calls) -> None:
    def other(value: Any) -> Any:
        return value

    code = functions.double.__code__
    woven = put_in(functions.double, calls)
    functions.double.__code__ = other.__code__
    woven.take_out()
    assert functions.double.__code__ is other.__code__
    functions.double.__code__ = code


def test_closures_private_names_and_wrapped_functions(calls: Calls, weaves: Callable[..., None]) -> None:
    add, child = functions.adder(3), functions.Child()

    @wraps(add)
    def around(*args: Any) -> Any:
        return add(*args)

    for function in (around, functions.Child.tell):
        weaves(function, calls)
    assert (around(4), child.tell()) == (7, "private of Holder")
    assert [name for name, *_ in calls.seen] == 2 * ["before", "after"]


def not_what_runs() -> int:
    """Change its own code."""
    return 1


not_what_runs.__code__ = not_what_runs.__code__.replace(co_consts=(1,), co_names=("x",))
made: dict[str, Any] = {}
exec("def without_source(): pass", made)


@pytest.mark.parametrize(
    "function",
    [len, made["without_source"], functions.yields, functions.deletes_its_argument, not_what_runs, lambda: 1, None],
)
def test_where_it_cannot_be_nothing_is_woven(function: Any, calls: Calls) -> None:
    assert weave(function, calls.before, calls.after) is None


OF_TORCH = [
    *(torch.nn.Module._call_impl, torch.nn.Module.zero_grad, torch.autograd.backward, torch.autograd.grad),
    *(torch.optim.Optimizer.__init__, torch.optim.Optimizer.zero_grad, torch.amp.GradScaler.step, torch.compile),
    *(torch.autograd.profiler.record_function.__enter__, torch.autograd.profiler.record_function.__exit__),
]


@pytest.mark.parametrize("function", OF_TORCH, ids=lambda one: one.__qualname__)
def test_functions_of_torch_can_be_woven_into(function: Any, calls: Calls) -> None:
    assert weave(function, calls.before, calls.after) is not None
