"""The compiled watch, called through ctypes: installed once a recording, it notes events where it is told to."""

from __future__ import annotations

import ctypes
import os
import sysconfig
from array import array
from typing import Any, NamedTuple

from memtrace.hooks.native.call_stacks import CallStacks, Node
from memtrace.hooks.parts.chunk import StackTable

_NO_STACK = -(2**31)
_MAX_INT32 = 2**31 - 1
_CPU_REPORTER = "_ZN3c1025ProfiledCPUMemoryReporter"
_REPORT = "_ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE"
_EVALUATE = (
    "_ZN5torch8autograd6Engine17evaluate_functionERSt10shared_ptrINS0_9GraphTaskEE"
    "PNS0_4NodeERNS0_11InputBufferERKS2_INS0_10ReadyQueueEE"
)


class Unwatched(Exception):
    """This torch, or this Python, cannot be watched."""


class _Functions(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("libc10", "libtorch_cpu", "new", "delete", "report", "evaluate")]


class _Events(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("time_ns", "address", "size", "total", "stack")),
        ("num", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("initial", ctypes.c_int64),
        ("num_lost", ctypes.c_int64),
    ]


class Taken(NamedTuple):
    """Events as columns, in the order in which they happened. The least number of a width stands for null."""

    time_ns: array[int]
    action: array[int]
    address: array[int]
    size_bytes: array[int]
    stack: array[int]
    """Row of the table of stacks, or null."""
    total_bytes: array[int]
    """What the allocator had handed out after it; null for memory that is shared between processes."""
    initial_bytes: int
    """What it had handed out before the first."""
    num_lost: int
    """Events for which there was no memory."""


class AllocatorWatch:
    """Watches torch's CPU allocator from `install` to `uninstall`; events are noted while `record` says so."""

    def __init__(self, torch: Any, library: str, *, own_folder: str) -> None:
        """Load the library.

        Raises:
            Unwatched: it cannot be loaded here.
        """
        folder = os.path.join(os.path.dirname(torch.__file__), "lib")
        try:
            # With the GIL: what it does takes a moment, and it may give back frames.
            self._watch = ctypes.PyDLL(library)
            # The object behind a handle is where the loader keeps the library's tables.
            torches = [ctypes.PyDLL(os.path.join(folder, name)) for name in ("libc10.so", "libtorch_cpu.so")]
            libc10, libtorch_cpu = torches
            addresses = [
                _address(library, name)
                for library, name in (
                    (libc10, f"{_CPU_REPORTER}3NewEPvm"),
                    (libc10, f"{_CPU_REPORTER}6DeleteEPv"),
                    (libc10, _REPORT),
                    (libtorch_cpu, _EVALUATE),
                )
            ]
        except (OSError, AttributeError) as error:
            raise Unwatched(str(error)) from None
        self._functions = _Functions(*(one._handle for one in torches), *addresses)
        self._watch.watch_take.restype = ctypes.POINTER(_Events)
        self._watch.watch_stacks.restype = ctypes.c_size_t
        self._watch.watch_actions.restype = ctypes.c_int64
        self._watch.stacks_num.restype = ctypes.c_int32
        self._watch.stacks_start.argtypes = [ctypes.py_object]
        self._stacks = CallStacks(self._node, _Demangler(libc10), own_folder=own_folder)

    def check_calls(self) -> None:
        """Check that Python's calls can be followed.

        Raises:
            Unwatched: they cannot. Without the GIL, threads change what is read; before 3.11 nothing says where a
                frame is.
        """
        if sysconfig.get_config_var("Py_GIL_DISABLED") or not self._watch.stacks_install():
            raise Unwatched("its calls cannot be followed")

    def install(self, torch: Any) -> None:
        """Watch from now on.

        Raises:
            Unwatched: torch's libraries do not call each other in a way that can be watched.
        """
        # The loader finds out where a function is at its first call, and would overwrite what we put there.
        torch.empty(1, device="cpu")
        if not self._watch.watch_install(ctypes.byref(self._functions)) or not self._sees(torch):
            self.uninstall()
            raise Unwatched("its calls of the CPU allocator are not found")

    def _sees(self, torch: Any) -> bool:
        """Return whether a block that is made and freed is seen."""
        self.record(True)
        block = torch.empty(3, device="cpu")
        address = block.data_ptr()
        del block
        self.record(False)
        events = self._watch.watch_take().contents
        addresses, sizes = (_column(where, events.num) for where in (events.address, events.size))
        return [*zip(addresses, sizes, strict=True)] == [(address, 12), (address, -12)]

    def uninstall(self) -> None:
        """Watch no more, and leave torch as it was."""
        self._watch.watch_uninstall()

    def record(self, on: bool) -> None:
        """Note events from now on, or note none."""
        self._watch.watch_record(on)

    def follow_calls(self, owner: object) -> None:
        """Follow this thread's calls from now on; `owner` is what Python will call its profile hook."""
        self._watch.stacks_start(owner)

    def leave_calls(self, *, is_ours: bool) -> None:
        """Follow them no longer; `is_ours` says that nobody has put another hook in the place of ours."""
        self._watch.stacks_stop(is_ours)

    def levels(self) -> tuple[int, int]:
        """Return how many bytes are handed out now, and the most since this was last asked."""
        found = (ctypes.c_int64 * 2)()
        self._watch.watch_levels(found)
        return found[0], found[1]

    def take(self, table: StackTable, *, alloc: int, free: int, has_stacks: bool) -> Taken:
        """Return the events so far, with their stacks put into a table, and forget them.

        `alloc` and `free` are what stands for the two actions.
        """
        events = self._watch.watch_take().contents
        actions = array("b", bytes(events.num))
        largest = self._watch.watch_actions(ctypes.c_int8(alloc), ctypes.c_int8(free), _memory(actions))
        if largest > _MAX_INT32:
            sizes = _column(events.size, events.num)
        else:
            sizes = array("i", bytes(4 * events.num))
            self._watch.watch_sizes(_memory(sizes))
        stacks = self._named_stacks(events.num, table if has_stacks else None)
        times, addresses, totals = (
            _column(where, events.num) for where in (events.time_ns, events.address, events.total)
        )
        return Taken(times, actions, addresses, sizes, stacks, totals, events.initial, events.num_lost)

    def _named_stacks(self, num_events: int, table: StackTable | None) -> array[int]:
        """Return, in place of the watch's numbers of stacks, their rows in a table; null without one."""
        num = self._watch.stacks_num()
        rows, used = (ctypes.c_int32 * num)(), (ctypes.c_int32 * num)()
        num_used = self._watch.watch_stacks(used, rows, ctypes.c_size_t(num))
        for number in used[:num_used]:
            row = None if table is None else self._stacks.row(number, table)
            rows[number] = _NO_STACK if row is None else row
        stacks = array("i", bytes(4 * num_events))
        self._watch.watch_translate(rows, _memory(stacks))
        return stacks

    def _node(self, number: int) -> Node:
        node = Node()
        self._watch.stacks_node(number, ctypes.byref(node))
        return node


class _Demangler:
    """Says the names of C++ classes in words, as far as the C++ library says how."""

    def __init__(self, library: Any) -> None:
        self._demangle, self._free = library["__cxa_demangle"], library["free"]
        self._demangle.restype = ctypes.c_void_p
        self._free.argtypes = [ctypes.c_void_p]

    def __call__(self, name: str) -> str:
        status = ctypes.c_int()
        found = self._demangle(name.encode(), None, None, ctypes.byref(status))
        if not found:
            return name
        text = ctypes.string_at(found).decode("utf-8", "replace")
        self._free(found)
        return text


def _address(library: Any, name: str) -> int | None:
    return ctypes.cast(library[name], ctypes.c_void_p).value


def _memory(column: array[int]) -> ctypes.c_void_p:
    return ctypes.c_void_p(column.buffer_info()[0])


def _column(where: int | None, num: int) -> array[int]:
    column = array("q")
    if where is not None and num:
        column.frombytes(ctypes.string_at(where, 8 * num))
    return column
