"""The CPU allocator's table of blocks, as it would be without us while the program's own memory profile runs.

The allocator knows a block only where a profile of memory ran when it was allocated, and tells of the free of no other.
`NativeLog` lets it know every block. So the program's profile would see more frees than without us. Meanwhile the size
of each block that is ours to know is 0 in the table, which is what the allocator tells nothing of; what is missing
afterwards was freed.

torch has no function for that. What is written to is known by its place behind an exported address, as the C++ library
of GCC lays a hash map out; it is looked at first, by reads that cannot fault, and left alone unless it is all there.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memtrace.hooks.parts.as_imported import system

_REPORTER = "_ZN3c1025profiledCPUMemoryReporterEv"
_DELETE = "_ZN3c1025ProfiledCPUMemoryReporter6DeleteEPv"
# Behind a mutex of 40 bytes: buckets, their number, the first node, the number of nodes, two of growth, one bucket.
_FIRST, _COUNT, _ALLOCATED, _NUM_UNKNOWN = 56, 64, 96, 104
_KEY, _VALUE = 8, 16
_WORD = 8
_MAX_BLOCKS = 1_000_000
_ODD_BYTES = 12_347
# Of so many frees of unknown blocks the allocator tells once.
_TOLD_EVERY = 1000
_NO_BLOCK = 1


class BlockTable:
    """The table of this process. `hide` before the program's profile, `show` after it."""

    def __init__(self, torch: Any, libc10: str) -> None:
        self._torch = torch
        self._address = 0
        self._delete: Any = None
        self._hidden: dict[int, int] | None = None
        self._total_bytes = 0
        self._of_program: dict[int, int] = {}
        """Blocks that the program's profiles have seen, which it would know without us."""
        self._bytes_of_program = self._num_unknown = 0
        self._lock: Any = None
        self._unlock: Any = None
        if platform.system() != "Linux" or platform.machine() != "x86_64":
            return
        try:
            library = ctypes.PyDLL(libc10)
            reporter, delete = library[_REPORTER], library[_DELETE]
            threads = ctypes.PyDLL(None)
            self._lock, self._unlock = threads.pthread_mutex_lock, threads.pthread_mutex_unlock
        except (OSError, AttributeError):
            return
        reporter.restype, reporter.argtypes = ctypes.c_void_p, ()
        delete.restype, delete.argtypes = None, (ctypes.c_void_p, ctypes.c_void_p)
        self._lock.argtypes = self._unlock.argtypes = (ctypes.c_void_p,)
        self._address, self._delete = int(reporter() or 0), delete
        if not self._is_as_expected():
            self._address = 0

    def hide(self) -> None:
        """Let the allocator tell nothing of blocks that it knows because of us."""
        if not self._address or self._hidden is not None:
            return
        self._hidden = {}
        with self._locked():
            for node in self._nodes():
                key, value = _at(node + _KEY), _at(node + _VALUE)
                self._hidden[key.value] = value.value
                value.value = self._of_program.get(key.value, 0)
            self._total_bytes = self._allocated.value
            self._allocated.value = self._bytes_of_program

    def show(self) -> None:
        """Let it know again what is left of them, and tell what it would have told of the others."""
        hidden, self._hidden = self._hidden, None
        if hidden is None:
            return
        seen, self._of_program = self._of_program, {}
        with self._locked():
            self._bytes_of_program = self._allocated.value
            total_bytes = self._total_bytes
            for node in self._nodes():
                key, value = _at(node + _KEY), _at(node + _VALUE)
                size = hidden.pop(key.value, 0) if value.value == seen.get(key.value, 0) else 0
                if value.value:
                    self._of_program[key.value] = value.value
                if size:
                    value.value = size
                else:
                    total_bytes += value.value
            self._allocated.value = total_bytes - sum(hidden.values())
        self._tell(sum(key not in seen for key in hidden))

    def _tell(self, num_unknown: int) -> None:
        """Let the allocator say of frees of unknown blocks what it says of the first, and of every thousandth."""
        before, self._num_unknown = self._num_unknown, self._num_unknown + num_unknown
        num_lines = -(-self._num_unknown // _TOLD_EVERY) - -(-before // _TOLD_EVERY)
        counter = _at(self._address + _NUM_UNKNOWN)
        count = counter.value
        for _ in range(num_lines):
            counter.value = 0
            self._delete(self._address, _NO_BLOCK)
        counter.value = count

    @property
    def _allocated(self) -> ctypes.c_size_t:
        return _at(self._address + _ALLOCATED)

    def _nodes(self) -> Iterator[int]:
        node = _at(self._address + _FIRST).value
        while node:
            yield node
            node = _at(node).value

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock(self._address)
        try:
            yield
        finally:
            self._unlock(self._address)

    def _is_as_expected(self) -> bool:
        """Return whether a block of our own is found where it must be, and is gone once it is freed."""
        try:
            memory = system.open("/proc/self/mem", os.O_RDONLY)
        except OSError:
            return False
        try:
            tensor = self._torch.empty(_ODD_BYTES, dtype=self._torch.uint8)
            address = tensor.data_ptr()
            with_it, allocated = self._read(memory)
            del tensor
            without, then = self._read(memory)
        except (OSError, ValueError):
            return False
        finally:
            system.close(memory)
        return with_it.get(address) == _ODD_BYTES and address not in without and allocated - then == _ODD_BYTES

    def _read(self, memory: int) -> tuple[dict[int, int], int]:
        """Return the table and its total. Raises OSError or ValueError where it is none."""

        def word(address: int) -> int:
            return int.from_bytes(system.pread(memory, _WORD, address), "little")

        with self._locked():
            count, node, found = word(self._address + _COUNT), word(self._address + _FIRST), dict[int, int]()
            while node and len(found) < min(count, _MAX_BLOCKS):
                found[word(node + _KEY)] = word(node + _VALUE)
                node = word(node)
            allocated = word(self._address + _ALLOCATED)
        if node or len(found) != count:
            raise ValueError("no table of blocks")
        return found, allocated


def _at(address: int) -> ctypes.c_size_t:
    return ctypes.c_size_t.from_address(address)
