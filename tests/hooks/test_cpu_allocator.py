"""The watch on the CPU's allocator: the events that torch's profiler has, on all threads, with the line of each."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from memtrace.hooks.native.allocator_watch import Unwatched  # noqa: E402
from memtrace.hooks.parts.chunk import EventBatch  # noqa: E402
from memtrace.hooks.sources.cpu_allocator import WatchedCpuSource  # noqa: E402
from memtrace.hooks.sources.cpu_profiler import CpuSource  # noqa: E402
from tests.hooks.test_cpu import rows, stack_of, work  # noqa: E402
from tests.watch import LIBRARY, WHY_NOT  # noqa: E402

if LIBRARY is None:
    pytest.skip(WHY_NOT, allow_module_level=True)
NO_STACK = -(2**31)


@pytest.fixture
def source() -> Iterator[WatchedCpuSource]:
    """A watch with Python frames, taken off at the end."""
    made = WatchedCpuSource(torch, LIBRARY, stacks="python")
    yield made
    made.end()


def places(batch: EventBatch) -> list[list[tuple[str, int, str]]]:
    """Return the frames of each event, innermost first."""
    return [stack_of(batch, None if stack == NO_STACK else stack) for stack in batch.columns["stack"]]


def test_it_has_every_event_that_torchs_profiler_has(source: WatchedCpuSource) -> None:
    profiler = CpuSource(torch, stacks="none", profile=False, warn=print)
    held = [torch.empty(size) for size in range(1, 20)]
    profiler.start(frames=False)
    source.start()
    work()
    held.clear()
    torch.nn.functional.conv2d(torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3))
    watched = source.stop()
    profiled = profiler.stop()
    assert rows(watched) == rows(profiled)
    assert len(rows(watched)) > 40
    steps = [
        [b - a for a, b in zip(batch.columns["total_bytes"], batch.columns["total_bytes"][1:], strict=False)]
        for batch in (watched, profiled)
    ]
    assert steps[0] == steps[1]
    assert watched.num_lost == 0


def test_an_allocation_has_its_exact_address_and_size(source: WatchedCpuSource) -> None:
    source.start()
    tensor = torch.empty(1000, dtype=torch.float32)
    address = tensor.data_ptr()
    del tensor
    assert rows(source.stop()) == [("alloc", address, 4000), ("free_completed", address, 4000)]


def test_a_block_beyond_32_bits_has_its_size(source: WatchedCpuSource) -> None:
    source.start()
    # Asked for, and never written to: it takes no memory.
    torch.empty(3 << 30, dtype=torch.uint8)
    assert [size for _, _, size in rows(source.stop())] == [3 << 30, 3 << 30]


def test_a_block_freed_after_a_restart_is_known(source: WatchedCpuSource) -> None:
    source.start()
    tensor = torch.empty(500)
    address = tensor.data_ptr()
    first = source.stop()
    source.start()
    del tensor
    second = source.stop()
    assert rows(first) == [("alloc", address, 2000)]
    assert rows(second) == [("free_completed", address, 2000)]
    assert second.initial_bytes == first.columns["total_bytes"][-1]


def test_a_block_freed_between_two_runs_is_missing_from_the_next_total(source: WatchedCpuSource) -> None:
    source.start()
    tensor = torch.empty(500)
    total = source.stop().columns["total_bytes"][-1]
    del tensor
    source.start()
    torch.empty(10)
    assert source.stop().initial_bytes == total - 2000


def test_levels_are_known_while_nothing_is_recorded(source: WatchedCpuSource) -> None:
    before, _ = source.levels()
    kept = torch.empty(100)
    torch.empty(1000)
    assert source.levels() == (before + 400, before + 4400)
    assert source.levels() == (before + 400, before + 400)
    assert kept.numel() == 100


def test_other_threads_are_seen(source: WatchedCpuSource) -> None:
    def allocate() -> None:
        for size in range(1, 200):
            torch.empty(size)

    source.start()
    threads = [threading.Thread(target=allocate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batch = source.stop()
    sizes = [size for action, _, size in rows(batch) if action == "alloc"]
    assert sorted(sizes) == sorted(4 * size for size in range(1, 200) for _ in range(4))
    assert batch.columns["total_bytes"][-1] == batch.initial_bytes
    line = line_of(allocate, "torch.empty(size)")
    made = [place for (action, _, _), place in zip(rows(batch), places(batch), strict=True) if action == "alloc"]
    assert {(place[0][1:], place[1][2]) for place in made} == {((line, "allocate"), "run")}


class Twice(torch.autograd.Function):  # type: ignore[misc, name-defined]
    """A function of the program's own, with a backward in Python."""

    @staticmethod
    def forward(ctx: Any, value: Any) -> Any:
        """Double."""
        return value.repeat(2)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """Allocate a number of bytes that nothing else does."""
        torch.empty(4321)
        return gradient[:3] + gradient[3:]


def line_of(function: Any, text: str) -> int:
    """Return the line of a function that holds a text."""
    lines, first = inspect.getsourcelines(function)
    return first + next(at for at, line in enumerate(lines) if text in line)


def test_each_frame_has_the_line_that_it_executes(source: WatchedCpuSource) -> None:
    def add(one: Any) -> Any:
        unused = len([1])
        return one + unused  # no call: the operator itself

    def allocate() -> object:
        return add(torch.empty(77))

    one = allocate
    source.start()
    kept = one()
    batch = source.stop()
    here = line_of(test_each_frame_has_the_line_that_it_executes, "kept = one()")
    found = {size: place for (_, _, size), place in zip(rows(batch), places(batch), strict=True)}
    name = "test_each_frame_has_the_line_that_it_executes"
    sums = [
        place
        for (action, _, size), place in zip(rows(batch), places(batch), strict=True)
        if action == "alloc" and size == 308
    ]
    assert [frame[1:] for frame in sums[0][:2]] == [
        (line_of(allocate, "torch.empty(77)"), "allocate"),
        (here, name),
    ]
    assert [frame[1:] for frame in sums[1][:3]] == [
        (line_of(add, "one + unused"), "add"),
        (line_of(allocate, "return add("), "allocate"),
        (here, name),
    ]
    assert found
    assert kept is not None


Seen = list[list[tuple[str, int, str]]]


def here(seen: Seen) -> int:
    """Note what Python says of the stack, and allocate as many bytes as none did before."""
    frame: Any = sys._getframe()
    seen.append([])
    while frame is not None:
        seen[-1].append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    torch.empty(len(seen))
    return len(seen)


class Ways:
    """Ways to be called, each of which calls `here` in the end."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def __call__(self) -> int:
        return here(self.seen)

    def __getattr__(self, name: str) -> int:
        return here(self.seen)

    @property
    def value(self) -> int:
        """Call it as a property does."""
        return here(self.seen)

    def below(self, depth: int) -> int:
        """Call it so many calls deeper."""
        if depth:
            return self.below(depth - 1)
        return here(self.seen)

    def numbers(self) -> Iterator[int]:
        """Call it twice, from one frame at two places."""
        yield here(self.seen)
        yield here(self.seen)

    def handles(self) -> int:
        """Call it while an exception is handled, and at the end of a block."""
        try:
            raise ValueError(here(self.seen))
        except ValueError:
            return here(self.seen)
        finally:
            here(self.seen)

    async def waits(self) -> int:
        """Call it in a coroutine."""
        return here(self.seen)

    def all(self) -> None:
        """Call it in every way."""
        self()
        self.unknown  # noqa: B018
        self.value  # noqa: B018
        self.below(20)
        [here(self.seen) for _ in range(2)]
        list(self.numbers())
        sum(number for number in self.numbers())
        sorted(range(3), key=lambda _: here(self.seen))
        functools.reduce(lambda one, _: one + here(self.seen), range(2), 0)
        list(map(here, [self.seen] * 2))
        self.handles()
        # Not by an event loop: a browser that other tests drive has one in this thread.
        with contextlib.suppress(StopIteration):
            self.waits().send(None)
        exec("def made(here, seen):\n\n    return here(seen)\nmade(here, seen)", {"here": here, "seen": self.seen})
        eval("here(seen)", {"here": here, "seen": self.seen})


def test_each_stack_is_what_python_says_of_it(source: WatchedCpuSource) -> None:
    ways = Ways([])
    source.start()
    ways.all()
    thread = threading.Thread(target=ways.all)
    thread.start()
    thread.join()
    batch = source.stop()
    found = [place for (action, _, _), place in zip(rows(batch), places(batch), strict=True) if action == "alloc"]
    assert len(found) == len(ways.seen) > 40
    line = line_of(here, "torch.empty")
    for place, said in zip(found, ways.seen, strict=True):
        assert place == [(__file__, line, "here"), *said[1:]]


def test_of_a_deep_recursion_the_innermost_frames_are_told(source: WatchedCpuSource) -> None:
    ways = Ways([])
    source.start()
    ways.below(700)
    batch = source.stop()
    line = line_of(Ways.below, "self.below(depth - 1)")
    place = places(batch)[0]
    assert place[2:] == [(__file__, line, "below")] * 254


def test_a_frame_whose_code_is_gone_has_its_name(source: WatchedCpuSource) -> None:
    import gc

    source.start()
    for number in range(50):
        space: dict[str, Any] = {"torch": torch}
        exec(f"def gone_{number}():\n\n    return torch.empty({number + 1})\ngone_{number}()", space)
        space.clear()
        del space
        gc.collect(0)
    batch = source.stop()
    made = [place for (action, _, _), place in zip(rows(batch), places(batch), strict=True) if action == "alloc"]
    assert [place[0][1:] for place in made] == [(3, f"gone_{number}") for number in range(50)]


@pytest.mark.parametrize(
    "name", ["größe", "größe_" * 40, "мера", "мера🐌", "𝒳", "a", "é", "ab\udce9cd", "x" * 3000], ids=range(9)
)
def test_names_may_be_of_any_characters(source: WatchedCpuSource, name: str) -> None:
    space: dict[str, Any] = {"torch": torch}
    exec(compile("def made():\n    return torch.empty(3)", "file", "exec"), space)
    code = space["made"].__code__
    space["made"].__code__ = code.replace(co_name=name, co_filename=f"/{name}.py")
    source.start()
    space["made"]()
    (place, *_) = places(source.stop())
    said = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    assert place[0] == (f"/{said}.py", 2, said)


def test_a_profile_hook_of_the_program_changes_nothing(source: WatchedCpuSource) -> None:
    called: list[str] = []
    sys.setprofile(lambda frame, event, _argument: called.append(f"{event} {frame.f_code.co_name}"))
    source.start()
    kept = torch.empty(5)
    batch = source.stop()
    sys.setprofile(None)
    assert places(batch)[0][0][2] == "test_a_profile_hook_of_the_program_changes_nothing"
    assert "c_call test_a_profile_hook_of_the_program_changes_nothing" in called
    assert kept.numel() == 5


def test_without_frames_stacks_hold_nodes_of_the_graph_alone(source: WatchedCpuSource) -> None:
    bare = WatchedCpuSource(torch, LIBRARY, stacks="none")
    weight = torch.ones(3, 3, requires_grad=True)
    bare.start()
    (weight @ weight).relu().sum().backward()
    named = [[frame[2] for frame in place] for place in places(bare.stop())]
    bare.end()
    assert [] in named
    assert ["ReluBackward0"] in named
    assert ["MmBackward0"] in named
    assert all(len(one) <= 1 for one in named)


def test_the_node_of_the_graph_stands_above_what_it_calls(source: WatchedCpuSource) -> None:
    value = torch.ones(3, requires_grad=True)
    source.start()
    Twice.apply(value.exp()).sum().backward()
    batch = source.stop()
    functions = [[frame[2] for frame in place] for place in places(batch)]
    own = next(one for (_, _, size), one in zip(rows(batch), functions, strict=True) if size == 4 * 4321)
    assert own[0] == "backward"
    assert own[2] == "torch::autograd::PyNode"
    assert own[3] == "_engine_run_backward"
    assert any(one[:2] == ["ExpBackward0", "_engine_run_backward"] for one in functions)


def test_generators_exceptions_and_recursion_leave_the_right_calls(source: WatchedCpuSource) -> None:
    def numbers() -> Iterator[Any]:
        yield torch.empty(11)
        yield torch.empty(12)

    def falls(depth: int) -> None:
        if depth:
            falls(depth - 1)
        raise ValueError(torch.empty(13))

    def outer() -> list[Any]:
        kept = list(numbers())
        for _ in range(2):
            try:
                falls(50)
            except ValueError as error:
                kept.append(error.args)
        return [kept, torch.empty(14)]

    source.start()
    kept = outer()
    batch = source.stop()
    found = [
        (size // 4, [frame[2] for frame in place])
        for (action, _, size), place in zip(rows(batch), places(batch), strict=True)
        if action == "alloc"
    ]
    assert [size for size, _ in found] == [11, 12, 13, 13, 14]
    name = "test_generators_exceptions_and_recursion_leave_the_right_calls"
    for size, functions in found:
        inner = {11: ["numbers"], 12: ["numbers"], 13: ["falls"] * 51, 14: []}[size]
        assert functions[: len(inner) + 2] == [*inner, "outer", name], size
    assert kept


def test_no_frame_is_kept_alive(source: WatchedCpuSource) -> None:
    import weakref

    class Thing:
        pass

    def holds() -> weakref.ref[Thing]:
        thing = Thing()
        torch.empty(1)
        return weakref.ref(thing)

    source.start()
    assert holds()() is None
    source.stop()


def test_the_programs_profiler_sees_what_it_would(source: WatchedCpuSource) -> None:
    def frees() -> list[int]:
        before = [torch.empty(9) for _ in range(30)]
        with torch.profiler.profile(profile_memory=True) as profiler:
            torch.empty(8)
            before.clear()
        return sorted(event.self_cpu_memory_usage for event in profiler.events() if event.name == "[memory]")

    recorded = frees()
    source.start()
    watched = frees()
    source.stop()
    source.end()
    assert recorded == watched == frees()


def test_shared_memory_is_told_without_a_total(source: WatchedCpuSource) -> None:
    tensor = torch.ones(1 << 10)
    source.start()
    tensor.share_memory_()
    batch = source.stop()
    shared = [
        size for (_, _, size), total in zip(rows(batch), batch.columns["total_bytes"], strict=True) if total == -(2**63)
    ]
    assert shared
    assert min(shared) >= 4096


def test_after_its_end_torch_is_as_it_was(source: WatchedCpuSource) -> None:
    source.start()
    source.end()
    level, _ = source.levels()
    kept = torch.empty(100)
    assert source.levels()[0] == level
    assert kept.numel() == 100


def test_what_cannot_be_loaded_is_said() -> None:
    with pytest.raises(Unwatched):
        WatchedCpuSource(torch, "/nowhere/watch.so", stacks="none")


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=400))
def test_the_table_of_blocks_is_a_dictionary(moves: list[tuple[int, int]]) -> None:
    watch = ctypes.PyDLL(LIBRARY)
    for function in (watch.block_put, watch.block_take):
        function.restype = ctypes.c_int64
    watch.blocks_forget()
    model: dict[int, int] = {}
    for number, size in moves:
        # Few homes for many addresses, so that they push one another on.
        address = 64 * (1 + number % 7 + (number // 7 << 44))
        if size:
            assert watch.block_put(ctypes.c_size_t(address), ctypes.c_int64(size)) == model.get(address, 0)
            model[address] = size
        else:
            assert watch.block_take(ctypes.c_size_t(address)) == model.pop(address, 0)
    for address, size in model.items():
        assert watch.block_take(ctypes.c_size_t(address)) == size
    watch.blocks_forget()


IN_CHILDREN = """
import os, sys, threading, torch
from memtrace.hooks.sources.cpu_allocator import WatchedCpuSource
source = WatchedCpuSource(torch, sys.argv[1], stacks="python")
source.start()
stop = threading.Event()
def allocate():
    while not stop.is_set():
        torch.empty(100)
thread = threading.Thread(target=allocate)
thread.start()
for _ in range(200):
    child = os.fork()
    if child == 0:
        for _ in range(100):
            torch.empty(10)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
stop.set()
thread.join()
"""


def test_forked_children_of_a_watched_process_end_as_they_would() -> None:
    # Another thread holds the watch's lock at some of the forks.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_CHILDREN, LIBRARY], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_node_of_the_graph_is_kept_alive(source: WatchedCpuSource) -> None:
    import weakref

    def train() -> weakref.ref[Any]:
        layer = torch.nn.Linear(3, 3)
        layer(torch.ones(1, 3)).sum().backward()
        return weakref.ref(layer.weight)

    source.start()
    assert train()() is None
    source.stop()


def test_a_node_that_raises_is_left(source: WatchedCpuSource) -> None:
    class Raises(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, value: Any) -> Any:
            return value * 2

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            raise KeyError("own")

    for frames in (False, True):
        source.start(frames=frames)
        with pytest.raises(KeyError, match="own"):
            Raises.apply(torch.ones(3, requires_grad=True)).sum().backward()
        kept = torch.empty(99)
        batch = source.stop()
        at = next(at for at, (_, _, size) in enumerate(rows(batch)) if size == 4 * 99)
        assert "PyNode" not in str(places(batch)[at])
        assert kept.numel() == 99


def test_a_backward_within_a_node_is_told_apart(source: WatchedCpuSource) -> None:
    from torch.utils.checkpoint import checkpoint

    value = torch.ones(5, 5, requires_grad=True)
    loss = checkpoint(lambda one: (one @ one).exp(), value, use_reentrant=True).sum()
    source.start()
    loss.backward()
    functions = [[frame[2] for frame in place] for place in places(source.stop())]
    inner = next(one for one in functions if one[0] == "ExpBackward0")
    assert [name for name in inner if "autograd::" in name or name.endswith("Backward0")] == [
        "ExpBackward0",
        "torch::autograd::PyNode",
    ]


def test_beyond_a_number_events_are_lost_and_counted() -> None:
    source = WatchedCpuSource(torch, LIBRARY, stacks="none", max_events=10)
    try:
        source.start(frames=False)
        kept = [torch.empty(5) for _ in range(13)]
        first = source.stop()
        source.start(frames=False)
        kept.append(torch.empty(6))
        second = source.stop()
    finally:
        source.end()
    assert (len(rows(first)), first.num_lost) == (10, 3)
    assert ([size for _, _, size in rows(second)], second.num_lost) == ([24], 0)
    assert second.initial_bytes == first.initial_bytes + 13 * 20
    assert len(kept) == 14


@pytest.fixture
def told_often(monkeypatch: pytest.MonkeyPatch, source: WatchedCpuSource) -> WatchedCpuSource:
    """The watch, running, where a hundred events are many."""
    monkeypatch.setattr("memtrace.hooks.sources.cpu_allocator._MANY_EVENTS", 100)
    source.start()
    return source


def allocate_often() -> None:
    """Make a thousand events, two a block."""
    for _ in range(500):
        torch.empty(7)


def test_many_events_are_told_of_in_the_main_thread(told_often: WatchedCpuSource) -> None:
    told: list[threading.Thread] = []
    told_often.tell_of_many(lambda: told.append(threading.current_thread()))
    allocate_often()
    assert told == [threading.main_thread()] * 10
    thread = threading.Thread(target=allocate_often)
    thread.start()
    thread.join()
    # Python calls it when the main thread goes on, and several times that wait as one.
    assert set(told[10:]) == {threading.main_thread()}
    told_often.tell_of_many(None)
    num = len(told)
    allocate_often()
    assert len(told) == num


def test_taken_events_are_no_longer_many(told_often: WatchedCpuSource) -> None:
    told: list[int] = []
    told_often.tell_of_many(lambda: told.append(1))
    for _ in range(20):
        for _ in range(49):
            torch.empty(7)
        told_often.stop()
        told_often.start()
    assert told == []


def test_what_is_raised_where_many_events_are_told_of_comes_up_in_the_program(told_often: WatchedCpuSource) -> None:
    error = KeyboardInterrupt()

    def interrupted() -> None:
        told_often.tell_of_many(None)
        raise error

    told_often.tell_of_many(interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        allocate_often()
    assert caught.value is error
    allocate_often()


def test_it_is_installed_while_other_threads_allocate_and_whatever_numbers_are() -> None:
    stop = threading.Event()

    def allocate() -> None:
        while not stop.is_set():
            torch.empty(50)

    thread = threading.Thread(target=allocate)
    thread.start()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for _ in range(20):
            WatchedCpuSource(torch, LIBRARY, stacks="none").end()
    finally:
        torch.set_default_dtype(default)
        stop.set()
        thread.join()


WITH_ANOTHER_MALLOC = """
import sys, torch
from memtrace.hooks.sources.cpu_allocator import WatchedCpuSource
source = WatchedCpuSource(torch, sys.argv[1], stacks="python")
value = torch.ones(3, requires_grad=True).exp().sum()
source.start(frames=True)
value.backward()
source.stop()
source.end()
"""


@pytest.mark.process
def test_a_program_may_have_another_malloc() -> None:
    # As of jemalloc: whoever frees its blocks by the C library's ends there.
    compiler = shutil.which("gcc")
    sanitizer = compiler and subprocess.check_output([compiler, "-print-file-name=libasan.so"], text=True).strip()
    if not sanitizer or not os.path.isabs(sanitizer):
        pytest.skip("there is no other malloc here")
    environ = {**os.environ, "LD_PRELOAD": sanitizer, "ASAN_OPTIONS": "detect_leaks=0"}
    line = [sys.executable, "-c", WITH_ANOTHER_MALLOC, LIBRARY]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_blocks_that_live_when_recording_begins_are_listed(source: WatchedCpuSource) -> None:
    kept = [torch.empty(1000 + number) for number in range(300)]
    gone = torch.empty(7777).data_ptr()
    source.start()
    made = torch.empty(8888)
    kept.pop()
    batch = source.stop()
    living = dict(zip(batch.living["address"], batch.living["size_bytes"], strict=True))
    assert {one.data_ptr(): one.nbytes for one in kept}.items() <= living.items()
    assert living.get(gone) != 4 * 7777
    assert made.data_ptr() not in living
    assert sum(living.values()) == batch.initial_bytes
