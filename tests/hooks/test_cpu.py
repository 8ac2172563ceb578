"""CPU events of the real allocator: exact sizes, addresses, frees across restarts, stacks with the calling line."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.parts.chunk import EventBatch  # noqa: E402
from memtrace.hooks.sources.cpu_profiler import SOURCE, CpuSource  # noqa: E402
from memtrace.hooks.sources.event_tree import TreeWalk  # noqa: E402


@pytest.fixture
def source() -> Iterator[CpuSource]:
    """A CPU source with Python frames, stopped at the end: one that runs on would crash the interpreter at exit."""
    made = CpuSource(torch, stacks="python", profile=False, warn=print)
    yield made
    made.stop()


def rows(batch: EventBatch) -> list[tuple[str, int, int]]:
    """Return action, address and size of each event."""
    strings = batch.strings.record()["values"]
    columns = batch.columns
    if not columns:
        return []
    return [
        (strings[action], address, size)
        for action, address, size in zip(columns["action"], columns["address"], columns["size_bytes"], strict=True)
    ]


def test_an_allocation_has_its_exact_address_and_size(source: CpuSource) -> None:
    source.start(frames=False)
    tensor = torch.empty(1000, dtype=torch.float32)
    address = tensor.data_ptr()
    del tensor
    assert rows(source.stop()) == [("alloc", address, 4000), ("free_completed", address, 4000)]


def test_a_block_freed_after_a_restart_is_known(source: CpuSource) -> None:
    source.start(frames=False)
    tensor = torch.empty(500)
    address = tensor.data_ptr()
    first = source.stop()
    source.start(frames=False)
    del tensor
    assert rows(first) == [("alloc", address, 2000)]
    second = source.stop()
    assert rows(second) == [("free_completed", address, 2000)]
    assert second.initial_bytes == first.columns["total_bytes"][-1]


def test_a_block_freed_between_two_runs_is_missing_from_the_next_total(source: CpuSource) -> None:
    source.start(frames=False)
    tensor = torch.empty(500)
    total = source.stop().columns["total_bytes"][-1]
    del tensor
    source.start(frames=False)
    torch.empty(10)
    assert source.stop().initial_bytes == total - 2000


def test_other_threads_are_seen_in_the_total_only(source: CpuSource) -> None:
    kept: list[object] = []
    source.start(frames=False)
    torch.empty(1)
    thread = threading.Thread(target=lambda: kept.append(torch.empty(1 << 20)))
    thread.start()
    thread.join()
    torch.empty(1)
    batch = source.stop()
    assert [size for _, _, size in rows(batch)] == [4] * 4
    totals = batch.columns["total_bytes"]
    assert totals[2] - totals[1] == 4 + 4 * (1 << 20)


def test_stacks_name_the_line_that_called(source: CpuSource) -> None:
    def allocate() -> object:
        return torch.empty(77)

    source.start(frames=True)
    kept = allocate()
    line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    batch = source.stop()
    assert kept is not None
    (event,) = [index for index, size in enumerate(batch.columns["size_bytes"]) if size == 4 * 77]
    frames = stack_of(batch, batch.columns["stack"][event])
    functions = [function for _, _, function in frames]
    start = functions.index("allocate")
    assert frames[start][1] == line - 3
    assert frames[start + 1][1:] == (line, "test_stacks_name_the_line_that_called")


def test_a_function_that_seems_to_be_called_by_itself_has_one_frame() -> None:
    # As torch 2.8 tells of functions that run already when its profiler starts.
    class Allocation:
        device, ptr, alloc_size, total_allocated = torch.device("cpu"), 512, 64, 64

    class Call(SimpleNamespace):
        pass

    class BuiltInCall(Call):
        pass

    def call(kind: type[Call], name: str, from_line: int, *children: object) -> SimpleNamespace:
        callsite = SimpleNamespace(file_name="train.py", line_number=1, function_name=name)
        fields = kind(caller=SimpleNamespace(line_number=from_line), callsite=callsite)
        return SimpleNamespace(children=children, extra_fields=fields, name=name)

    profiler = SimpleNamespace(
        _ExtraFields_Allocation=Allocation, _ExtraFields_PyCall=Call, _ExtraFields_PyCCall=BuiltInCall
    )
    allocation = SimpleNamespace(children=(), extra_fields=Allocation(), start_time_ns=1, duration_time_ns=0)
    doubled = call(BuiltInCall, "<function train at 0x7f00>", 20, call(Call, "allocate", 30, allocation))
    batch = EventBatch(SOURCE)
    TreeWalk(profiler, batch).run([call(Call, "train", 10, doubled)], with_calls=True)
    (stack,) = batch.columns["stack"]
    assert stack_of(batch, stack) == [("train.py", 1, "allocate"), ("train.py", 30, "train")]


def stack_of(batch: EventBatch, stack: int | None) -> list[tuple[str, int, str]]:
    """Return the frames of a stack, innermost first, as file, line and function."""
    frames, stacks = (one["columns"] for one in batch.stacks.records())
    strings = batch.strings.record()["values"]
    found = []
    while stack is not None:
        frame = stacks["frame"][stack]
        found.append((strings[frames["file"][frame]], frames["line"][frame], strings[frames["function"][frame]]))
        stack = stacks["parent"][stack]
    return found


def test_nothing_is_written_to_the_streams_of_the_program() -> None:
    text = """
import torch
before = [torch.empty(10) for _ in range(50)]
from memtrace.hooks.sources.cpu_profiler import CpuSource
source = CpuSource(torch, stacks="python", profile=False, warn=print)
for _ in range(3):
    source.start(frames=True)
    before.pop()
    torch.randn(100)
    source.stop()
before.clear()
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_total_counts_nothing_of_what_is_tried_out_before() -> None:
    text = """
import torch
from memtrace.hooks.sources.cpu_profiler import CpuSource
source = CpuSource(torch, stacks="none", profile=False, warn=print)
source.start(frames=False)
kept = torch.empty(1000)
batch = source.stop()
assert (batch.initial_bytes, batch.columns["total_bytes"]) == (0, [4000]), (batch.initial_bytes, batch.columns)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("stacks", ["none", "python", "all"])
def test_a_library_that_is_spared_changes_no_event(stacks: str) -> None:
    source = CpuSource(torch, stacks=stacks, profile=False, warn=print)
    spared, whole = source._prepared, {torch._C._profiler.ProfilerActivity.CPU}
    found = []
    for prepared in (spared, whole):
        source._prepared = prepared
        work()
        source.start(frames=stacks != "none")
        work()
        batch = source.stop()
        places = [stack_of(batch, stack) for stack in batch.columns["stack"]]
        found.append((batch.columns["action"], batch.columns["size_bytes"], places))
    assert found[0] == found[1]
    assert len(found[0][0]) > 20


def work() -> None:
    """Allocate in forward, backward and a loop of Python."""
    weight = torch.ones(3, 3, requires_grad=True)
    torch.relu(weight @ weight).sum().backward()
    for size in range(5):
        torch.empty(size + 1)


STOPS_INSIDE_A_RANGE = """
import torch
from memtrace.hooks.sources.cpu_profiler import CpuSource

source = CpuSource(torch, stacks={stacks!r}, profile=False, warn=print)
source.start(frames=False)
for _ in range(50):
    with torch.profiler.record_function("range"):
        source.stop()
        # The heap hands out again what the stopped profiler gave back.
        blocks = [bytearray(200 * (number % 900 + 1)) for number in range(300)]
        source.start(frames=False)
    assert not any(any(block) for block in blocks), "written to after it was freed"
source.stop()
"""


@pytest.mark.parametrize("stacks", ["python", "all"])
def test_no_freed_memory_is_written_to_when_it_stops_inside_a_named_range(stacks: str) -> None:
    program = STOPS_INSIDE_A_RANGE.format(stacks=stacks)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


def test_operators_are_left_once_the_program_compiles() -> None:
    source = CpuSource(torch, stacks="all", profile=False, warn=print)
    names = []
    for leaves in (False, True):
        source.start(frames=False)
        kept = torch.ones(3) + 1
        if leaves:
            assert source.leave_operators()
        batch = source.stop()
        names.append({frame[2] for stack in batch.columns["stack"] for frame in stack_of(batch, stack)})
        assert kept.numel() == 3
    # Those that run already are left where it is stopped.
    assert all("aten::add" in found for found in names)
    assert not source.leave_operators()
    assert not source.observes_calls
    source.start(frames=False)
    kept = torch.ones(3) + 1
    assert set(source.stop().columns["stack"]) == {None}
    assert kept.numel() == 3
