"""Allocation events of the CPU allocator, address by address, from torch's own profiler. No GPU needed.

The profiler is driven through the functions that `torch.profiler` itself calls, with operator events left out: memory
events and Python frames cost a fraction of a full profile. Facts that shape this file (torch 2.13):

- A profiler belongs to the thread that started it, and sees no allocation of other threads. The allocator's running
  total is in every event, so what was not seen is known in bytes.
- A block is known to the profiler only if it was allocated under one, and a free of an unknown block is dropped with
  a line on stderr. `_track_all_blocks` makes the allocator keep its table at all times instead.
- A profiler that is alive when the interpreter exits, or in a forked child, ends in a segmentation fault. So it is
  stopped before every fork and at exit.
- With frames, every Python call and return becomes an event that is held in memory until the stop. Code that is heavy
  in Python (imports, tokenising, compilation) would fill the memory, so whoever starts it says whether frames are
  wanted: inside the forward, backward and optimizer of chosen steps, nowhere else.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from memtrace.hooks.chunk import EventBatch, StackTable

SOURCE = "cpu_profiler"
_OWN_SHORT = os.path.join("memtrace", "hooks", "")
DEVICE = "cpu"

# Below this, LOG(WARNING) of torch's C++ side is silent (c10/util/logging_is_not_google_glog.h).
_LOG_LEVEL_ERROR = 2
_LOG_LEVEL_WARNING = 1


class CpuSource:
    """Records CPU allocations of the thread that starts it."""

    name = SOURCE

    def __init__(self, torch: Any, *, stacks: str, profile: bool) -> None:
        """Prepare, without starting. Raises AttributeError where this torch has no such profiler."""
        self._engine = torch._C._autograd
        self._kinds = torch._C._profiler._EventType
        self._profiler = torch._C._profiler
        self._profile = profile
        self._with_operators = stacks == "all" or profile
        self.has_frames = stacks != "none"
        """Whether Python frames were asked for."""
        self._thread: int | None = None
        self.frames = False
        """Whether it was last started with Python frames."""
        self._own_folder = os.path.dirname(os.path.abspath(__file__))
        self.result: Any = None
        """The last profile that was stopped, to be saved natively, when a profile was asked for."""
        _track_all_blocks(torch, self._with_profiler)

    @property
    def running(self) -> bool:
        """Whether events are being recorded."""
        return self._thread is not None

    @property
    def can_switch(self) -> bool:
        """Whether the calling thread may start or stop it: only the thread that started it can stop it."""
        return self._thread in (None, threading.get_ident())

    def start(self, *, frames: bool) -> None:
        """Start recording on this thread, with Python frames or without; nothing happens if it runs already."""
        if not self.running:
            # The frames come from the interpreter's profile hook; a profiler of the user's keeps its own.
            self.frames = frames and self.has_frames and sys.getprofile() is None
            self._enable(with_frames=self.frames)
            self._thread = threading.get_ident()

    def stop(self) -> EventBatch:
        """Stop and return what was recorded. Nothing is recorded until the next `start`."""
        batch = EventBatch(SOURCE)
        if self.running and self.can_switch:
            self._thread = None
            result = self._engine._disable_profiler()
            _TreeWalk(self._kinds, batch, self._own_folder).run(result.experimental_event_tree())
            self.result = result if self._profile else None
        return batch

    def _with_profiler(self, action: Callable[[], None]) -> None:
        self._enable(with_frames=False)
        action()
        self._engine._disable_profiler()

    def _enable(self, *, with_frames: bool) -> None:
        profiler = self._profiler
        config = profiler.ProfilerConfig(
            profiler.ProfilerState.KINETO,
            False,  # shapes
            True,  # memory
            with_frames,
            False,  # flops
            False,  # modules
            profiler._ExperimentalConfig(),
        )
        scopes = {profiler.RecordScope.USER_SCOPE, profiler.RecordScope.BACKWARD_FUNCTION}
        activities = {profiler.ProfilerActivity.CPU}
        with silent_kineto():
            self._engine._prepare_profiler(config, activities)
            # No scopes means all of them, operators included.
            self._engine._enable_profiler(config, activities, set() if self._with_operators else scopes)


@contextmanager
def silent_kineto() -> Iterator[None]:
    """Keep the profiler's library from announcing each start on stderr: it reads its log level when it is prepared."""
    name = "KINETO_LOG_LEVEL"
    if name in os.environ:
        yield
        return
    os.environ[name] = "99"
    try:
        yield
    finally:
        del os.environ[name]


def _track_all_blocks(torch: Any, with_profiler: Callable[[Callable[[], None]], None]) -> None:
    """Make the CPU allocator remember every block from now on, so that a free is known whoever allocated the block.

    Its flag for that also logs each event at the level INFO, so it is left alone where that level would be shown.
    Blocks older than this are freed unknown, and the first of every thousand such frees is reported on stderr: one
    is spent here while warnings are off. Where libc10 does not export these names, nothing is changed.
    """
    try:
        library = ctypes.CDLL(_libc10(torch))
        track = ctypes.c_bool.in_dll(library, "FLAGS_caffe2_report_cpu_memory_usage")
        level = ctypes.c_int.in_dll(library, "FLAGS_caffe2_log_level")
    except (OSError, ValueError):
        return
    if level.value < _LOG_LEVEL_WARNING or track.value:
        return
    unknown = [torch.empty(1)]
    before, level.value = level.value, max(level.value, _LOG_LEVEL_ERROR)
    try:
        with_profiler(unknown.clear)
    finally:
        level.value = before
    track.value = True


def _libc10(torch: Any) -> str:
    suffix = {"darwin": "libc10.dylib", "win32": "c10.dll"}.get(sys.platform, "libc10.so")
    return os.path.join(os.path.dirname(torch.__file__), "lib", suffix)


class _TreeWalk:
    """Turns the profiler's event tree into columns: allocations with the stack of frames above them.

    A Python call carries the line its function starts at and the line of its caller at the call. So the line that a
    frame was executing is known from the call below it; where memory was allocated with no call in between (an
    operator such as `a + b`), it is the first line of the function.
    """

    def __init__(self, kinds: Any, batch: EventBatch, own_folder: str) -> None:
        self._kinds = kinds
        self._batch = batch
        self._own_folder = own_folder
        self._rows: list[_Row] = []

    def run(self, roots: list[Any]) -> None:
        """Fill the batch from the roots of the tree."""
        self._walk(roots)
        # Roots of several threads follow one another; events must be in the order of time. The sort is stable.
        rows = sorted(self._rows, key=lambda row: row[0])
        if rows:
            self._batch.columns = self._columns(rows)
            self._batch.initial_bytes = rows[0][4] - rows[0][2]

    def _columns(self, rows: list[_Row]) -> dict[str, Any]:
        times, addresses, sizes, stacks, totals = zip(*rows, strict=True)
        alloc, free = (self._batch.strings.id_of(name) for name in ("alloc", "free_completed"))
        return {
            "time_ns": times,
            "action": [alloc if size > 0 else free for size in sizes],
            "device": self._batch.strings.id_of(DEVICE),
            "address": addresses,
            "size_bytes": [abs(size) for size in sizes],
            "stream": 0,
            "stack": stacks,
            "total_bytes": totals,
            "device_free_bytes": None,
        }

    def _walk(self, roots: list[Any]) -> None:
        kinds, stacks, append = self._kinds, self._batch.stacks, self._rows.append
        allocation, calls = kinds.Allocation, (kinds.PyCall, kinds.PyCCall)
        # Parents wait with their children still to come; the innermost frame so far goes along.
        pending: list[tuple[Any, _Frame | None]] = [(root, None) for root in reversed(roots)]
        pop = pending.pop
        while pending:
            node, frame = pop()
            kind = node.tag
            if kind == allocation:
                fields = node.extra_fields
                if fields.device.type == DEVICE:
                    stack = None if frame is None else frame.stack(stacks, None)
                    append((node.start_time_ns, fields.ptr, fields.alloc_size, stack, fields.total_allocated))
                continue
            children = node.children
            if children:
                inner = self._call(node, frame) if kind in calls else self._operator(node, frame)
                pending.extend([(child, inner) for child in reversed(children)])
            elif kind not in calls:
                self._operator(node, frame)

    def _call(self, node: Any, outer: _Frame | None) -> _Frame | None:
        fields = node.extra_fields
        try:
            if node.tag == self._kinds.PyCCall:
                return _Frame(outer, fields.caller.line_number, "", 0, node.name)
            place = fields.callsite
            # Our own wrappers are no part of the user's program.
            if place.file_name.startswith((self._own_folder, _OWN_SHORT)):
                return outer
            return _Frame(outer, fields.caller.line_number, place.file_name, place.line_number, place.function_name)
        except UnicodeDecodeError:
            # The profiler keeps pointers into code objects; those of generated code may be gone by now.
            return outer

    def _operator(self, node: Any, outer: _Frame | None) -> _Frame | None:
        name = node.name
        if node.tag == self._kinds.TorchOp and node.extra_fields.scope.name == "USER_SCOPE":
            self._batch.annotations.append((name, node.start_time_ns, node.end_time_ns, DEVICE))
            return outer
        return _Frame(outer, None, "", 0, name)


_Row = tuple[int, int, int, "int | None", int]


class _Frame:
    """A frame and the call that led to it. Becomes a stack only where memory is allocated below it."""

    __slots__ = ("_caller_line", "_file", "_function", "_line", "_outer", "_outer_stack")

    def __init__(self, outer: _Frame | None, caller_line: int | None, file: str, line: int, function: str) -> None:
        self._outer = outer
        self._caller_line = caller_line
        self._file = file
        self._line = line
        self._function = function
        self._outer_stack: int | None = None

    def stack(self, stacks: StackTable, line: int | None) -> int:
        """Return the stack that ends in this frame, at the line of a call or, without one, at the function's start."""
        if self._outer_stack is None and self._outer is not None:
            self._outer_stack = self._outer.stack(stacks, self._caller_line)
        return stacks.push(self._outer_stack, self._file, line or self._line, self._function)
