"""What the device that is not there holds: which storage is where, and every allocation and free as an event.

A fake tensor is a meta tensor: C++ knows its shape, strides and type, and no kernel runs. Which device it stands for is
kept here, by the identity of its storage. A storage is freed when torch frees it: torch keeps the Python object of a
storage alive for as long as the storage itself, so that a weak reference to it says when.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterable
from time import time_ns
from types import FrameType
from typing import Any

from memtrace.hooks.fake.events.gpu_number import GpuNumber
from memtrace.hooks.parts.chunk import EventBatch
from memtrace.schema.frames import WRAPPER_FILE
from memtrace.schema.predicted import FIRST_ALLOWANCE_ADDRESS, FIRST_RULE_ADDRESS

SOURCE = "fake_device"

CUDA, HOST, PLAIN = "cuda", "host", "plain"
"""Kinds of storages: on the fake device; on the host, but without data; a meta tensor of the program's own."""

_FIRST_ADDRESS = 1 << 40
_ALIGNMENT = 512
_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_HOOKS_FOLDER = os.path.dirname(os.path.dirname(_OWN_FOLDER)) + os.sep

Places = tuple[tuple[Any, int], ...]
"""Code object and line of each frame, innermost first."""


class _Storage:
    """One storage that is known: its kind, its invented address, its bytes, and what is known of its values."""

    __slots__ = ("address", "is_assumed", "kind", "size", "values", "watch")

    def __init__(self, kind: str, address: int, size: int) -> None:
        self.kind = kind
        self.address = address
        self.size = size
        self.watch: Any = None
        self.values: tuple[Any, bool] | None = None
        self.is_assumed = False


class FakeMemory:
    """The memory of the fake device, and the events since the last drain."""

    name = SOURCE
    has_frames = False
    frames = False
    can_switch = True
    result = None

    def __init__(self, *, with_stacks: bool, num_gpus: int = 1) -> None:
        self.gpu = GpuNumber(num_gpus)
        """Which GPU it is."""
        self._with_stacks = with_stacks
        self._known: dict[int, _Storage] = {}
        self._next_address = _FIRST_ADDRESS
        self._events: list[tuple[int, bool, int, int, Places | None]] = []
        self._initial_bytes = 0
        self.running = False
        """Whether events are kept."""
        self._requested_bytes = 0
        self.allocated_bytes = 0
        """Bytes that are allocated now, each storage rounded up as the caching allocator rounds it."""
        self.peak_bytes = 0
        """Largest number of them since the program last asked for a new count."""
        self.forced_kind: str | None = None
        """Kind of the storages that are made next, where the call says which device is meant."""
        self.is_paused = False
        """Whether torch works out shapes for itself now: what it makes for that is no allocation."""
        self.moves_module = False
        """Whether a module is being moved: what goes to the host then stays without data."""
        self.before_alloc: Callable[[int], None] | None = None
        self.on_operator: Callable[[Any, Any, Any, Any], None] | None = None
        """Told of each operator of the device, with its arguments and what it returns."""

    @property
    def device(self) -> str:
        """The name of the device in a trace."""
        return self.gpu.name

    # The interface of an event source, see `cpu.py`.

    def start(self, *, frames: bool = False) -> None:
        """Keep events from now on."""
        if not self.running:
            self.running = True
            self._initial_bytes = self._requested_bytes

    def stop(self) -> EventBatch:
        """Return what was recorded; events are kept again from the next `start`."""
        batch = EventBatch(SOURCE)
        self.running = False
        events, self._events = self._events, []
        if events:
            batch.columns = _columns(events, batch, self.device)
            batch.initial_bytes = self._initial_bytes
        return batch

    # Storages

    def kind_of(self, tensor: Any) -> str | None:
        """Return where a tensor is taken to be; `None` for one that is really there."""
        tensor = getattr(tensor, "_local_tensor", tensor)
        if not _is_meta(tensor):
            return None
        return self.kind_of_storage(tensor.untyped_storage())

    def kind_of_storage(self, storage: Any) -> str:
        """Return where a fake storage is taken to be."""
        known = self._known.get(storage._cdata)
        return CUDA if known is None else known.kind

    def address_of(self, storage: Any) -> int:
        """Return the invented address of a storage; 0 if it is on no device."""
        known = self._known.get(storage._cdata)
        return 0 if known is None else known.address

    def values_of(self, storage: Any) -> tuple[Any, bool] | None:
        """Return the bytes of a fake storage that are known, and whether they are one element that stands for all."""
        known = self._known.get(storage._cdata)
        return None if known is None else known.values

    def is_assumed(self, storage: Any) -> bool:
        """Return whether these bytes hang on numbers that were taken to be finite."""
        known = self._known.get(storage._cdata)
        return known is not None and known.is_assumed

    def keep_values(self, storage: Any, values: tuple[Any, bool] | None, is_assumed: bool) -> None:
        """Keep the bytes of a fake storage, as `values_of` returns them; None forgets them."""
        known = self._known.get(storage._cdata)
        if known is not None:
            known.values, known.is_assumed = values, is_assumed

    def adopt(self, tensor: Any, kind: str) -> None:
        """Take note of the storage of a meta tensor, once: one on the device is an allocation."""
        if self.is_paused:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        address = 0
        if kind == CUDA and size:
            address = self._take(size)
        known = self._known[key] = _Storage(kind, address, size)
        known.watch = weakref.ref(storage, lambda _gone: self._gone(key, known))

    def resized(self, storage: Any) -> None:
        """Take note that the storage has been given another size."""
        known = self._known.get(storage._cdata)
        size = storage.nbytes()
        if known is not None:
            known.values = None
        if known is None or known.kind != CUDA or known.size == size:
            return
        if known.address:
            self._give(known.address, known.size)
        known.size = size
        known.address = self._take(size) if size else 0

    def temporary(self, *sizes: int) -> None:
        """Record scratch memory of a kernel: all of it is taken while it runs, and then given back."""
        taken = [(self._take(size, first_address=FIRST_RULE_ADDRESS), size) for size in sizes]
        for address, size in reversed(taken):
            self._give(address, size)

    def workspace(self, size: int) -> None:
        """Record memory that a library keeps for good; none of no bytes."""
        if size:
            self._take(size, first_address=FIRST_RULE_ADDRESS)

    def allowance(self, size: int) -> None:
        """Record what a kernel may take beside what is foreseen: it counts for the range of the prediction alone."""
        if self.running and size:
            address = FIRST_ALLOWANCE_ADDRESS + self._next_address
            self._next_address += _ALIGNMENT
            self._events += [(time_ns(), is_alloc, address, size, None) for is_alloc in (True, False)]

    def _gone(self, key: int, known: _Storage) -> None:
        if self._known.get(key) is known:
            del self._known[key]
        if known.address:
            self._give(known.address, known.size)

    def _take(self, size: int, *, first_address: int = 0) -> int:
        address = first_address + self._next_address
        rounded = -(-size // _ALIGNMENT) * _ALIGNMENT
        self._next_address += rounded
        self._requested_bytes += size
        self.allocated_bytes += rounded
        self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)
        if self.running:
            places = _places() if self._with_stacks else None
            self._events.append((time_ns(), True, address, size, places))
        return address

    def _give(self, address: int, size: int) -> None:
        self._requested_bytes -= size
        self.allocated_bytes -= -(-size // _ALIGNMENT) * _ALIGNMENT
        if self.running:
            self._events.append((time_ns(), False, address, size, None))


def _is_meta(tensor: Any) -> bool:
    return bool(tensor.is_meta)


def _places() -> Places:
    frame: FrameType | None = sys._getframe(3)
    found = []
    while frame is not None:
        found.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)


def _columns(
    events: Iterable[tuple[int, bool, int, int, Places | None]], batch: EventBatch, device: str
) -> dict[str, Any]:
    times, is_alloc, addresses, sizes, places = zip(*events, strict=True)
    alloc, free = (batch.strings.id_of(name) for name in ("alloc", "free_completed"))
    return {
        "time_ns": times,
        "action": [alloc if one else free for one in is_alloc],
        "device": batch.strings.id_of(device),
        "address": addresses,
        "size_bytes": sizes,
        "stream": 0,
        "stack": [None if one is None else _stack(one, batch) for one in places],
        "total_bytes": None,
        "device_free_bytes": None,
    }


def _stack(places: Places, batch: EventBatch) -> int | None:
    stack: int | None = None
    for code, line in reversed(places):
        if not code.co_filename.startswith((_HOOKS_FOLDER, WRAPPER_FILE, "<frozen importlib")):
            stack = batch.stacks.push(stack, code.co_filename, line, code.co_name)
    return stack
