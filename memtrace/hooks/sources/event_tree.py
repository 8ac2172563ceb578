"""The profiler's event tree as columns: allocations with the stack of frames above them.

A tree of a step may have a million nodes, and each attribute that is read of one makes a Python object. So what is not
needed is not read, and columns are lists that grow, without a tuple an event.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import le
from typing import Any

from memtrace.hooks.failure.tracebacks import OWN_FILES
from memtrace.hooks.parts.chunk import EventBatch, StackTable

DEVICE = "cpu"
_OWN_FILES = *OWN_FILES, os.path.join("memtrace", "hooks", "")
"""The last as torch writes it: without the folder that it is imported from."""


class TreeWalk:
    """Turns the profiler's event tree into columns: allocations with the stack of frames above them.

    A Python call carries the line its function starts at and the line of its caller at the call. So the line that a
    frame was executing is known from the call below it; where memory was allocated with no call in between (an
    operator such as `a + b`), it is the first line of the function.
    """

    def __init__(self, profiler: Any, batch: EventBatch) -> None:
        """Prepare; `profiler` is torch's module with the kinds of nodes."""
        self._allocation = profiler._ExtraFields_Allocation
        self._call, self._built_in_call = profiler._ExtraFields_PyCall, profiler._ExtraFields_PyCCall
        self._batch = batch
        self._is_cpu: dict[Any, bool] = {}

    def run(self, roots: Sequence[Any], *, with_calls: bool) -> None:
        """Fill the batch from the roots of the tree, in which there may be many calls that allocate nothing."""
        times, addresses, sizes, stacks, totals = self._in_order(self._walk(roots, with_calls))
        if not times:
            return
        alloc, free = (self._batch.strings.id_of(name) for name in ("alloc", "free_completed"))
        known = [total if _is_total(total, size) else None for total, size in zip(totals, sizes, strict=True)]
        self._batch.columns = {
            "time_ns": times,
            "action": [alloc if size > 0 else free for size in sizes],
            "device": self._batch.strings.id_of(DEVICE),
            "address": addresses,
            "size_bytes": list(map(abs, sizes)),
            "stream": 0,
            "stack": stacks,
            "total_bytes": known,
            "device_free_bytes": None,
        }
        first = next((at for at, total in enumerate(known) if total is not None), None)
        self._batch.initial_bytes = None if first is None else totals[first] - sizes[first]

    def _in_order(self, columns: _Columns) -> _Columns:
        """Return the columns in the order of time: the roots of several threads follow one another."""
        times = columns[0]
        if all(map(le, times, islice(times, 1, None))):
            return columns
        # The sort is stable: events of one time stay in the order of the tree.
        order = sorted(range(len(times)), key=times.__getitem__)
        times, addresses, sizes, stacks, totals = columns
        return (
            [times[at] for at in order],
            [addresses[at] for at in order],
            [sizes[at] for at in order],
            [stacks[at] for at in order],
            [totals[at] for at in order],
        )

    def _walk(self, roots: Sequence[Any], with_calls: bool) -> _Columns:
        columns: _Columns = ([], [], [], [], [])
        times, addresses, sizes, stacks, totals = columns
        allocation, is_cpu = self._allocation, self._is_cpu
        # The rest of the siblings waits while the children of one are walked. Few calls lead to an allocation, so
        # what a frame is gets read from it only then: reading costs more than all the rest.
        waiting: list[tuple[Iterator[Any], _Frame | None]] = []
        nodes: Iterator[Any] = iter(roots)
        frame: _Frame | None = None
        while True:
            for node in nodes:
                if children := node.children:
                    waiting.append((nodes, frame))
                    nodes, frame = iter(children), _Frame(frame, node, self)
                    break
                # An allocation takes no time. A call nearly always does, and this is the cheapest of its attributes.
                if with_calls and node.duration_time_ns:
                    continue
                fields = node.extra_fields
                if type(fields) is allocation and (is_cpu.get(device := fields.device) or self._learn(device)):
                    times.append(node.start_time_ns)
                    addresses.append(fields.ptr)
                    sizes.append(fields.alloc_size)
                    stacks.append(None if frame is None else frame.own_stack(self._batch.stacks))
                    totals.append(fields.total_allocated)
            else:
                if not waiting:
                    return columns
                nodes, frame = waiting.pop()

    def _learn(self, device: Any) -> bool:
        """Return whether a device is the CPU, and remember it: asking its type takes as long as all the rest."""
        return self._is_cpu.setdefault(device, device.type == DEVICE)

    def place(self, node: Any) -> _Place:
        """Return where a call or operator is."""
        fields = node.extra_fields
        kind = type(fields)
        try:
            if kind is self._built_in_call:
                name = node.name
                if name.startswith("<function "):
                    return _SAME
                return fields.caller.line_number, "", 0, _built_in_name(name)
            if kind is not self._call:
                return None, "", 0, node.name
            called = fields.callsite
            # Our own wrappers are not the user's; what they were called from goes on below them.
            if called.file_name.startswith(_OWN_FILES):
                return fields.caller.line_number, "", 0, None
            return fields.caller.line_number, called.file_name, called.line_number, called.function_name
        except UnicodeDecodeError:
            # The profiler keeps pointers into code objects; those of generated code may be gone by now.
            return None, "", 0, None


_Columns = tuple[list[int], list[int], list[int], list["int | None"], list[int]]
"""Times, addresses, signed sizes, stacks, totals after them."""


def _is_total(total: int, size: int) -> bool:
    """Return whether an event carries the allocator's total: memory shared between processes is reported without."""
    return total >= max(size, 0) and (total > 0 or size < 0)


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

_NOT_ASKED = -1


class _Frame:
    """A call or operator and what led to it. Becomes a stack only where memory is allocated below it."""

    __slots__ = ("_node", "_outer", "_outer_stack", "_own_stack", "_place", "_walk")

    def __init__(self, outer: _Frame | None, node: Any, walk: TreeWalk) -> None:
        self._outer = outer
        self._node = node
        self._walk = walk
        self._place: _Place | None = None
        self._outer_stack: int | None = None
        self._own_stack: int | None = _NOT_ASKED

    def own_stack(self, stacks: StackTable) -> int | None:
        """Return the stack of what this frame itself allocates."""
        if self._own_stack == _NOT_ASKED:
            self._own_stack = self.stack(stacks, None)
        return self._own_stack

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
