"""The calls that the watch reads are those that Python itself tells of, in programs made up at random."""

from __future__ import annotations

import asyncio
import functools
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from memtrace.hooks.sources.cpu_allocator import WatchedCpuSource  # noqa: E402
from tests.hooks.test_cpu import rows, stack_of  # noqa: E402
from tests.watch import LIBRARY, WHY_NOT  # noqa: E402

if LIBRARY is None:
    pytest.skip(WHY_NOT, allow_module_level=True)

Frames = list[tuple[str, int, str]]
Tree = tuple[int, list[Any]]
ONE = torch.ones(1)


class Program:
    """A tree of calls: what each node does is its number's, and each allocates before, between and after its own."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.expected: list[Frames] = []
        self.kinds: list[Callable[[list[Tree]], Any]] = [
            self.function,
            self.generator,
            self.thrown_into,
            self.raises,
            self.mapped,
            self.sorted_by,
            self.reduced,
            self.comprehension,
            self.delegated,
            self.coroutine,
            self.wrapped,
            self.collected,
            self.constructed,
        ]

    def run(self, tree: Tree) -> int:
        """Do what a tree says."""
        kind, parts = tree
        self.kinds[kind](parts)
        self.allocate()
        return 0

    def allocate(self) -> None:
        """Allocate a size of its own, within no function of C."""
        frame, frames = sys._getframe(), []
        size = len(self.expected) + 2
        room = ONE.expand(size)
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back  # type: ignore[assignment]
        self.kept.append(-room)
        line = sys._getframe().f_lineno - 1
        places = [(one.f_code.co_filename, one.f_lineno, one.f_code.co_name) for one in frames]
        self.expected.append([(places[0][0], line, places[0][2]), *places[1:]])

    def function(self, parts: list[Tree]) -> None:
        for part in parts:
            self.run(part)

    def _numbers(self, parts: list[Tree]) -> Iterator[int]:
        for part in parts:
            try:
                yield self.run(part)
            except ValueError:
                self.allocate()
                yield 1
        self.allocate()

    def generator(self, parts: list[Tree]) -> None:
        for _ in self._numbers(parts):
            self.allocate()

    def thrown_into(self, parts: list[Tree]) -> None:
        numbers = self._delegate(parts)
        if next(numbers, None) is not None:
            numbers.throw(ValueError)  # type: ignore[attr-defined]
            self.allocate()
        numbers.close()  # type: ignore[attr-defined]

    def _delegate(self, parts: list[Tree]) -> Iterator[int]:
        yield from self._numbers(parts)

    def delegated(self, parts: list[Tree]) -> None:
        list(self._delegate(parts))

    def raises(self, parts: list[Tree]) -> None:
        try:
            self.function(parts)
            raise KeyError
        except KeyError:
            self.allocate()
        finally:
            self.allocate()

    def mapped(self, parts: list[Tree]) -> None:
        list(map(self.run, parts))

    def sorted_by(self, parts: list[Tree]) -> None:
        sorted(parts, key=lambda part: self.run(part))

    def reduced(self, parts: list[Tree]) -> None:
        functools.reduce(lambda _, part: self.run(part), parts, 0)

    def comprehension(self, parts: list[Tree]) -> None:
        assert [self.run(part) for part in parts] == [0] * len(parts)
        assert not any(self.run(part) for part in parts)

    def coroutine(self, parts: list[Tree]) -> None:
        async def each(part: Tree) -> None:
            await asyncio.sleep(0)
            self.run(part)

        async def together() -> None:
            await asyncio.gather(*map(each, parts))
            self.allocate()

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(together())

    def wrapped(self, parts: list[Tree]) -> None:
        @functools.wraps(self.function)
        def around(*arguments: Any) -> None:
            self.allocate()
            self.function(*arguments)

        functools.partial(around)(parts)

    def constructed(self, parts: list[Tree]) -> None:
        class Made:
            def __init__(self, program: Program, parts: list[Tree] | None) -> None:
                if parts is not None:
                    program.function(parts)
                    program.allocate()

        # Where it is called often, Python sets an object up in another way.
        for number in range(100):
            Made(self, parts if number == 99 else None)

    def collected(self, parts: list[Tree]) -> None:
        program = self

        class Ends:
            def __del__(self) -> None:
                program.function(parts)

        def holds() -> None:
            ends = Ends()
            program.allocate()
            del ends

        holds()


KINDS = st.integers(0, len(Program().kinds) - 1)
TREES = st.recursive(st.tuples(KINDS, st.just([])), lambda inner: st.tuples(KINDS, st.lists(inner, max_size=3)))


@pytest.fixture(scope="module")
def source() -> Iterator[WatchedCpuSource]:
    """A watch with Python frames, taken off at the end."""
    made = WatchedCpuSource(torch, LIBRARY, stacks="python")
    yield made
    made.end()


@given(tree=TREES)
def test_each_allocation_is_where_python_says(source: WatchedCpuSource, tree: Tree) -> None:
    program = Program()
    source.start(frames=True)
    program.run(tree)
    batch = source.stop()
    by_size = {
        size: [frame for frame in stack_of(batch, stack) if frame[0]]
        for (action, _, size), stack in zip(rows(batch), batch.columns["stack"], strict=True)
        if action == "alloc" and stack >= 0
    }
    own = [by_size[4 * (2 + number)] for number in range(len(program.expected))]
    assert own == program.expected


def test_each_stack_of_calls_has_its_own(source: WatchedCpuSource) -> None:
    greenlet = pytest.importorskip("greenlet")
    main = greenlet.getcurrent()
    kept = []
    # An operator is no call, at which the calls might be found anew.
    wide = [ONE.expand(size) for size in range(63)]

    def inner(size: int) -> None:
        kept.append(torch.empty(size))
        main.switch()
        kept.append(-wide[size + 1])

    def outer(size: int) -> None:
        inner(size)
        kept.append(torch.empty(size + 2))

    before = greenlet.greenlet(outer)
    before.switch(20)
    source.start(frames=True)
    after = greenlet.greenlet(outer)
    after.switch(50)
    kept.append(-wide[60])
    before.switch()
    kept.append(-wide[61])
    after.switch()
    kept.append(-wide[62])
    batch = source.stop()
    found = {
        size // 4: [frame[2] for frame in stack_of(batch, stack)] if stack >= 0 else []
        for (action, _, size), stack in zip(rows(batch), batch.columns["stack"], strict=True)
        if action == "alloc"
    }
    assert (found.pop(21), found.pop(22)) == (["inner", "outer"], ["outer"])
    assert (found.pop(50), found.pop(51), found.pop(52)) == (["inner", "outer"], ["inner", "outer"], ["outer"])
    assert [found[size][0] for size in sorted(found)] == ["test_each_stack_of_calls_has_its_own"] * 3


def test_a_stack_of_calls_may_be_left_within_a_node_of_the_graph(source: WatchedCpuSource) -> None:
    greenlet = pytest.importorskip("greenlet")
    main = greenlet.getcurrent()
    kept = []

    def pause(gradient: Any) -> Any:
        main.switch()
        kept.append(torch.empty(70))
        return gradient

    def train() -> None:
        value = torch.ones(3, requires_grad=True)
        value.register_hook(pause)
        value.sum().backward()
        kept.append(torch.empty(71))

    source.start(frames=True)
    apart = greenlet.greenlet(train)
    apart.switch()
    # Over what was left on the thread's stack.
    sorted([3, 2, 1], key=lambda number: re.sub("(a|b)*", "", "ab" * 1000 * number))
    kept.append(torch.empty(72))
    apart.switch()
    kept.append(torch.empty(73))
    batch = source.stop()
    found = {
        size // 4: [frame[2] for frame in stack_of(batch, stack)]
        for (action, _, size), stack in zip(rows(batch), batch.columns["stack"], strict=True)
        if action == "alloc"
    }
    assert found[71] == ["train"]
    assert found[72][0] == found[73][0] == "test_a_stack_of_calls_may_be_left_within_a_node_of_the_graph"
    assert found[70][0] == "pause"
