"""Allocation events of the CPU allocator, address by address, from torch's own profiler. No GPU needed.

The profiler is driven through the functions that `torch.profiler` itself calls, with operator events left out: memory
events and Python frames cost a fraction of a full profile. Facts that shape this file (torch 2.13):

- A profiler belongs to the thread that started it, and sees no allocation of other threads. The allocator's running
  total is in every event, so what was not seen is known in bytes.
- A block is known to the profiler only if it was allocated under one, and a free of an unknown block is dropped with
  a line on stderr. `NativeLog.track_all_blocks` makes the allocator keep its table at all times instead.
- An operator or named range that is open when a profiler stops is written to when it ends, if another profiler runs
  by then, and that memory has been freed. So nothing is observed that may be open where we stop: no named ranges
  (`record_function`, see `annotations.py`), and nothing at all is stopped inside a backward pass.
- A profiler that is alive when the interpreter exits, or in a forked child, ends in a segmentation fault. So it is
  stopped before every fork and at exit.
- With frames, every Python call and return becomes an event that is held in memory until the stop. Code that is heavy
  in Python (imports, tokenising, compilation) would fill the memory, so whoever starts it says whether frames are
  wanted: inside the forward, backward and optimizer of chosen steps, nowhere else.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from memtrace.hooks.parts.chunk import EventBatch, StackTable
from memtrace.hooks.sources.kineto_log import KinetoLog
from memtrace.hooks.sources.native_log import NativeLog

SOURCE = "cpu_profiler"
_OWN_SHORT = os.path.join("memtrace", "hooks", "")
DEVICE = "cpu"


class CpuSource:
    """Records CPU allocations of the thread that starts it."""

    name = SOURCE

    def __init__(self, torch: Any, *, stacks: str, profile: bool, warn: Callable[[str, str], None]) -> None:
        """Prepare, without starting. Raises AttributeError where this torch has no such profiler."""
        self._traced = ((torch.nn.Module, "__call__"), (torch.optim.Optimizer, "_optimizer_step_code"))
        self._warn = warn
        self._engine = torch._C._autograd
        self._graph_task = torch._C._current_graph_task_id
        self._kinds = torch._C._profiler._EventType
        self._profiler = torch._C._profiler
        self._profile = profile
        self._with_operators = stacks == "all" or profile
        self.has_frames = stacks != "none"
        """Whether Python frames were asked for, and can be recorded as far as is known."""
        self._thread: int | None = None
        self.frames = False
        """Whether it was last started with Python frames."""
        self._own_folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self.result: Any = None
        """The last profile that was stopped, to be saved natively, when a profile was asked for."""
        self._kineto_log = KinetoLog(torch)
        self._log = NativeLog(torch)
        self._log.track_all_blocks(torch, self._with_profiler)

    @property
    def running(self) -> bool:
        """Whether events are being recorded."""
        return self._thread is not None

    @property
    def can_switch(self) -> bool:
        """Whether it may be started or stopped here: by the thread that started it, and not inside a backward pass.

        Autograd keeps the thread's state of when the pass began, and puts it back at its end, a stopped profiler
        with it.
        """
        return self._thread in (None, threading.get_ident()) and self._graph_task() == -1

    def start(self, *, frames: bool) -> None:
        """Start recording on this thread, with Python frames or without; nothing happens if it runs already.

        Raises OSError where no file can be opened: the profiler reads one, and would complain on stderr.
        """
        if not self.running and self.can_switch:
            os.close(os.open(os.devnull, os.O_RDONLY))
            # The frames come from the interpreter's profile hook; a profiler of the user's keeps its own.
            self.frames = frames and self._may_have_frames() and sys.getprofile() is None
            self._enable(with_frames=self.frames)
            self._thread = threading.get_ident()

    def stop(self) -> EventBatch:
        """Stop and return what was recorded. Nothing is recorded until the next `start`."""
        batch = EventBatch(SOURCE)
        if self.running and self.can_switch:
            self._thread = None
            with self._log.quiet(), self._kineto_log.quiet():
                result = self._engine._disable_profiler()
                roots = result.experimental_event_tree()
            _TreeWalk(self._kinds, batch, self._own_folder).run(roots)
            self.result = result if self._profile else None
        return batch

    def _may_have_frames(self) -> bool:
        """Whether frames may be recorded: not once the program has wrapped how torch calls modules or optimizers.

        From the frame of each such call the tracer reads the variable `self` without looking whether it is there, and
        takes it for a module: a wrapper's frame ends the process.
        """
        if self.has_frames and not all(_is_function_of_torch(*one) for one in self._traced):
            self.has_frames = False
            self._warn("calls-wrapped", "the program wraps the calls of torch's modules: stacks are not recorded")
        return self.has_frames

    def _with_profiler(self, action: Callable[[], None]) -> None:
        self._enable(with_frames=False)
        action()
        with self._kineto_log.quiet():
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
        scopes = {profiler.RecordScope.BACKWARD_FUNCTION}
        if self._with_operators:
            scopes.add(profiler.RecordScope.FUNCTION)
        activities = {profiler.ProfilerActivity.CPU}
        self._kineto_log.prepare(self._engine, config, activities)
        with self._kineto_log.quiet():
            self._engine._enable_profiler(config, activities, scopes)


def _is_function_of_torch(owner: Any, name: str) -> bool:
    """Return whether an attribute of a class is a function from the module of the class, with `self` first."""
    found = getattr(owner, name, None)
    code = getattr(found, "__code__", None)
    is_own = getattr(found, "__globals__", None) is vars(sys.modules[owner.__module__])
    return is_own and code is not None and code.co_varnames[:1] == ("self",)


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
            self._batch.initial_bytes = next((row[4] - row[2] for row in rows if _has_total(row)), None)

    def _columns(self, rows: list[_Row]) -> dict[str, Any]:
        times, addresses, sizes, stacks, _ = zip(*rows, strict=True)
        alloc, free = (self._batch.strings.id_of(name) for name in ("alloc", "free_completed"))
        return {
            "time_ns": times,
            "action": [alloc if size > 0 else free for size in sizes],
            "device": self._batch.strings.id_of(DEVICE),
            "address": addresses,
            "size_bytes": [abs(size) for size in sizes],
            "stream": 0,
            "stack": stacks,
            "total_bytes": [row[4] if _has_total(row) else None for row in rows],
            "device_free_bytes": None,
        }

    def _walk(self, roots: list[Any]) -> None:
        stacks, rows, kinds = self._batch.stacks, self._rows, self._kinds
        allocation = kinds.Allocation
        # Parents wait with their children still to come; the innermost frame so far goes along. Few calls lead to an
        # allocation, so what a frame is gets read from it only then: reading costs more than all the rest.
        pending: list[tuple[Any, _Frame | None]] = [(root, None) for root in reversed(roots)]
        pop = pending.pop
        while pending:
            node, frame = pop()
            children = node.children
            if not children and node.tag == allocation:
                fields = node.extra_fields
                if fields.device.type == DEVICE:
                    stack = None if frame is None else frame.stack(stacks, None)
                    rows.append((node.start_time_ns, fields.ptr, fields.alloc_size, stack, fields.total_allocated))
                continue
            if children:
                inner = _Frame(frame, node, self)
                pending.extend([(child, inner) for child in reversed(children)])

    def place(self, node: Any) -> _Place:
        """Return where a call or operator is."""
        kinds, fields = self._kinds, node.extra_fields
        try:
            if node.tag == kinds.PyCCall:
                name = node.name
                if name.startswith("<function "):
                    return _SAME
                return fields.caller.line_number, "", 0, _built_in_name(name)
            if node.tag != kinds.PyCall:
                return None, "", 0, node.name
            called = fields.callsite
            # Our own wrappers are not the user's; what they were called from goes on below them.
            if called.file_name.startswith((self._own_folder, _OWN_SHORT)):
                return fields.caller.line_number, "", 0, None
            return fields.caller.line_number, called.file_name, called.line_number, called.function_name
        except UnicodeDecodeError:
            # The profiler keeps pointers into code objects; those of generated code may be gone by now.
            return None, "", 0, None


_Row = tuple[int, int, int, "int | None", int]
"""Time, address, signed size, stack, total after it."""


def _has_total(row: _Row) -> bool:
    """Return whether an event carries the allocator's total: memory shared between processes is reported without."""
    return row[4] >= max(row[2], 0) and (row[4] > 0 or row[2] < 0)


def _built_in_name(name: str) -> str:
    """Return the name of a built-in without the address of its object, which differs from run to run.

    >>> _built_in_name("<built-in method pow of Tensor object at 0x7f00>"), _built_in_name("<built-in function next>")
    ('Tensor.pow', 'next')
    """
    if not name.startswith("<built-in "):
        return name
    words = name.removeprefix("<built-in ").rstrip(">").split(" ")
    # "function next", "method pow of Tensor object at 0x…", "method ones of type object at 0x…"
    owner = words[3] if len(words) > 3 and words[2] == "of" else ""
    return f"{owner}.{words[1]}" if owner and owner != "type" else words[1]


_Place = tuple["int | None", str, int, "str | None"]
"""Line of the caller, file, line and function. Without a function it is no frame of its own."""
_SAME: _Place = (None, "", 0, None)
"""Stands for the frame around it. torch 2.8 puts a call of `<function f at 0x…>`, as if f were built in, into each
function f that runs already when the profiler starts. What seems to be called there is called by f itself."""


class _Frame:
    """A call or operator and what led to it. Becomes a stack only where memory is allocated below it."""

    __slots__ = ("_node", "_outer", "_outer_stack", "_place", "_walk")

    def __init__(self, outer: _Frame | None, node: Any, walk: _TreeWalk) -> None:
        self._outer = outer
        self._node = node
        self._walk = walk
        self._place: _Place | None = None
        self._outer_stack: int | None = None

    def stack(self, stacks: StackTable, line: int | None) -> int | None:
        """Return the stack that ends in this frame, at the line of a call or, without one, at the function's start."""
        if self._place is None:
            self._place = self._walk.place(self._node)
            if self._outer is not None and self._place is not _SAME:
                self._outer_stack = self._outer.stack(stacks, self._place[0])
        if self._place is _SAME:
            return None if self._outer is None else self._outer.stack(stacks, line)
        _, file, first_line, function = self._place
        if function is None:
            return self._outer_stack
        return stacks.push(self._outer_stack, file, line or first_line, function)
