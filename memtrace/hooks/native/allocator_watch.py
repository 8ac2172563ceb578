"""The compiled watch, called through ctypes: installed once a recording, it notes events where it is told to."""

from __future__ import annotations

import ctypes
import os
import sysconfig
from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

from memtrace.hooks.native.call_stacks import CallStacks, Node
from memtrace.hooks.parts.chunk import StackTable

_NO_STACK = -(2**31)
_MAX_INT32 = 2**31 - 1
_UNUSUAL_LINE = 0x5A3C69D7
_OFTEN = 100
"""Calls after which Python has chosen the way in which a line calls what it calls."""

_CALLED: list[Callable[[], None]] = []
"""What the library may yet call."""


class Unwatched(Exception):
    """This torch, or this Python, cannot be watched."""


class _Events(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("time_ns", "address", "size", "total", "stack")),
        ("num", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("initial", ctypes.c_int64),
        ("num_lost", ctypes.c_int64),
    ]


class _Living(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_void_p),
        ("size", ctypes.c_void_p),
        ("num", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
    ]


class Living(NamedTuple):
    """Blocks that were there when events began to be noted."""

    address: array[int]
    size_bytes: array[int]


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
    """Events for which there was no room."""


class AllocatorWatch:
    """Watches torch's CPU allocator from `install` to `uninstall`; events are noted while `record` says so."""

    def __init__(self, torch: Any, library: str) -> None:
        """Load the library.

        Raises:
            Unwatched: it cannot be loaded here.
        """
        folder = os.path.join(os.path.dirname(torch.__file__), "lib")
        try:
            # With the GIL: what it reads of Python must not change meanwhile.
            self._watch = ctypes.PyDLL(library)
            self._torches = [ctypes.PyDLL(os.path.join(folder, name)) for name in ("libc10.so", "libtorch_cpu.so")]
        except OSError as error:
            raise Unwatched(str(error)) from None
        self._watch.watch_take.restype = ctypes.POINTER(_Events)
        self._watch.watch_living.restype = ctypes.POINTER(_Living)
        self._watch.watch_stacks.restype = ctypes.c_size_t
        self._watch.watch_actions.restype = ctypes.c_int64
        self._watch.stacks_num.restype = ctypes.c_int32
        self._stacks = CallStacks(self._node, _Demangler(self._torches[0], self._watch))

    def check_frames(self) -> None:
        """Check that the frames of Python can be read, before stacks are asked for.

        Raises:
            Unwatched: they cannot. Without the GIL, a thread's are not its own; before 3.11 nothing says where one is.
        """
        # Found here, and proved where they are others: in a generator, below a function of C, and in the `__init__` of
        # a class that was called so often that Python sets it up by a code of its own, which is learned there.
        is_found = not sysconfig.get_config_var("Py_GIL_DISABLED") and self._find_frames()
        proofs = (self._proved_in_generator, self._proved_below_c, self._proved_in_init)
        if not (is_found and self._proved_in_init(may_learn=True) and all(is_proved() for is_proved in proofs)):
            raise Unwatched("its frames cannot be read")

    def _prove(self, *, may_learn: bool = False) -> bool:
        return bool(self._watch.frames_prove(may_learn))

    def _proved_in_generator(self) -> bool:
        return all(self._prove() for _ in range(2))

    def _proved_below_c(self) -> bool:
        def prove(_: int) -> bool:
            return self._prove()

        return all(map(prove, range(2)))

    def _proved_in_init(self, *, may_learn: bool = False) -> bool:
        class Made:
            def __init__(self, number: int, prove: Callable[[], bool]) -> None:
                self.is_proved = number < _OFTEN or prove()

        return all(Made(number, lambda: self._prove(may_learn=may_learn)).is_proved for number in range(_OFTEN + 2))

    def _find_frames(self) -> bool:
        sample = self._find_frames.__code__.replace(co_firstlineno=_UNUSUAL_LINE)
        return bool(self._watch.frames_find(_texts(), ctypes.py_object(sample), ctypes.c_uint(_UNUSUAL_LINE)))

    def install(self, torch: Any, *, max_events: int) -> None:
        """Watch from now on; of the events of one `take`, beyond so many are lost.

        Raises:
            Unwatched: torch's libraries do not call each other in a way that can be watched.
        """
        # The loader finds out where a function is at its first call, and would overwrite what we put there.
        torch.empty(1, device="cpu")
        # The object behind a handle is where the loader keeps the library's tables.
        libraries = (ctypes.c_void_p(one._handle) for one in self._torches)
        if not self._watch.watch_install(*libraries, ctypes.c_size_t(max_events)) or not self._sees(torch):
            self.uninstall()
            raise Unwatched("its calls of the CPU allocator are not found")

    def _sees(self, torch: Any) -> bool:
        """Return whether a block that is made and freed is seen, among those of other threads."""
        self.record(True)
        block = torch.empty(3, device="cpu", dtype=torch.uint8)
        address = block.data_ptr()
        del block
        self.record(False)
        events = self._watch.watch_take().contents
        addresses, sizes = (_column(where, events.num) for where in (events.address, events.size))
        return {(address, 3), (address, -3)} <= set(zip(addresses, sizes, strict=True))

    def uninstall(self) -> None:
        """Watch no more, and leave torch as it was."""
        self._watch.watch_uninstall()

    def with_frames(self, on: bool) -> None:
        """Let stacks hold the frames of Python from now on, or nodes of autograd's graph alone."""
        self._watch.stacks_with_frames(on)

    def record(self, on: bool) -> None:
        """Note events from now on, or note none."""
        self._watch.watch_record(on)

    def living(self) -> Living:
        """Return the blocks that were there when events last began to be noted."""
        found = self._watch.watch_living().contents
        return Living(_column(found.address, found.num), _column(found.size, found.num))

    def tell_of_many(self, function: Callable[[], None] | None, *, every: int) -> None:
        """Have a function called in the main thread each time that so many events have been noted; `None` for no more.

        It is called between two instructions of whatever runs there, and what it raises comes up there.
        """
        if function is not None:
            _CALLED.append(function)
        self._watch.watch_many(ctypes.py_object(function), ctypes.c_size_t(0 if function is None else every))

    def levels(self) -> tuple[int, int]:
        """Return how many bytes are handed out now, and the most since this was last asked."""
        found = (ctypes.c_int64 * 2)()
        self._watch.watch_levels(found)
        return found[0], found[1]

    def take(self, table: StackTable, *, alloc: int, free: int) -> Taken:
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
        stacks = self._named_stacks(events.num, table)
        times, addresses, totals = (
            _column(where, events.num) for where in (events.time_ns, events.address, events.total)
        )
        return Taken(times, actions, addresses, sizes, stacks, totals, events.initial, events.num_lost)

    def _named_stacks(self, num_events: int, table: StackTable) -> array[int]:
        """Return, in place of the watch's numbers of stacks, their rows in a table."""
        num = self._watch.stacks_num()
        rows, used = (array("i", bytes(4 * num)) for _ in range(2))
        num_used = self._watch.watch_stacks(_memory(used), _memory(rows), ctypes.c_size_t(num))
        for number in used[:num_used]:
            row = self._stacks.row(number, table)
            rows[number] = _NO_STACK if row is None else row
        stacks = array("i", bytes(4 * num_events))
        self._watch.watch_translate(_memory(rows), _memory(stacks))
        return stacks

    def _node(self, number: int) -> Node:
        node = Node()
        self._watch.stacks_node(number, ctypes.byref(node))
        return node


def _texts() -> Any:
    """Return a text of each kind that Python has, by the width of its characters, as frames.c knows them."""
    texts = ("memtrace", "m\xe9mtrace", "m\u0417mt", "m\U0001f40c")
    row: Any = ctypes.py_object * len(texts)
    return row(*texts)


class _Demangler:
    """Says the names of C++ classes in words, as far as the C++ library says how."""

    def __init__(self, library: Any, watch: Any) -> None:
        # Another allocator may stand in for the C library's, whose `free` must not be given what that one made.
        self._demangle, self._free = library["__cxa_demangle"], watch["watch_free"]
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


def _memory(column: array[int]) -> ctypes.c_void_p:
    return ctypes.c_void_p(column.buffer_info()[0])


def _column(where: int | None, num: int) -> array[int]:
    column = array("q")
    if where is not None and num:
        column.frombytes(ctypes.string_at(where, 8 * num))
    return column
