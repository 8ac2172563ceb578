"""Recordings that the model itself makes: a program run on an imagined device, written down as torch would.

They hold what the public recordings lack: expandable segments, streams, retries, small capacities.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from memtrace.allocator import release
from memtrace.allocator.blocks import PENDING, Device
from memtrace.allocator.model import Allocator
from memtrace.allocator.settings import Settings, parse_settings, print_settings
from memtrace.allocator.state import state_of

Event = dict[str, Any]


class RecordingDevice(Device):
    """A device that notes what is taken from it and given back."""

    def __init__(self, capacity_bytes: int | None) -> None:
        super().__init__(capacity_bytes)
        self.events: list[Event] = []
        self.stream = 0

    def note(self, action: str, address: int, size: int, stream: int = 0) -> None:
        self.events.append({"action": action, "addr": address, "size": size, "stream": stream, "frames": []})

    def malloc(self, size: int) -> int | None:
        address = super().malloc(size)
        if address is not None:
            self.note("segment_alloc", address, size, self.stream)
        return address

    def free(self, address: int, size: int) -> None:
        super().free(address, size)
        self.note("segment_free", address, size, self.stream_of[address])

    def map(self, address: int, size: int) -> bool:
        is_there = super().map(address, size)
        if is_there and address:
            self.note("segment_map", address, size, self.stream)
        return is_there

    def unmap(self, address: int, size: int) -> None:
        super().unmap(address, size)
        # As torch: the stream of the memory, whichever one asks for the flush.
        mapped = next(
            one
            for one in reversed(self.events)
            if one["action"] == "segment_map" and one["addr"] <= address < one["addr"] + one["size"]
        )
        self.note("segment_unmap", address, size, mapped["stream"])

    @property
    def stream_of(self) -> dict[int, int]:
        return {one["addr"]: one["stream"] for one in self.events if one["action"] == "segment_alloc"}


class Recorder:
    """A program on a simulated allocator, and its recording."""

    def __init__(self, settings: Settings, capacity_bytes: int | None = None) -> None:
        self.settings = settings
        self.device = RecordingDevice(capacity_bytes)
        self.allocator = Allocator(settings, self.device, total_bytes=capacity_bytes)
        self.start = 0

    def malloc(self, requested: int, stream: int = 0, pool_id: str | None = None) -> int | None:
        self.device.stream = stream
        self.allocator.complete_free = self._completed_by_flush  # type: ignore[method-assign]
        block = self.allocator.malloc(requested, stream, pool_id)
        del self.allocator.complete_free
        if block is None:
            self.device.events.append({"action": "oom", "size": requested, "stream": stream, "device_free": 0})
            return None
        self.device.note("alloc", block.address, requested, stream)
        return block.address

    def _completed_by_flush(self, address: int) -> int:
        block = self.allocator.live[address]
        self.device.note("free_completed", address, block.requested, block.stream)
        return Allocator.complete_free(self.allocator, address)

    def request_free(self, address: int) -> None:
        block = self.allocator.live[address]
        self.allocator.request_free(address)
        self.device.note("free_requested", address, block.requested, block.stream)

    def complete(self, address: int) -> None:
        block = self.allocator.live[address]
        self.device.note("free_completed", address, block.requested, block.stream)
        self.allocator.complete_free(address)

    def free(self, address: int) -> None:
        self.request_free(address)
        self.complete(address)

    def empty_cache(self) -> None:
        for address in [address for address, block in self.allocator.live.items() if block.state == PENDING]:
            self.complete(address)
        release.release_cached(self.allocator)

    def forget(self) -> None:
        """Let the recording begin here."""
        self.start = len(self.device.events)

    def snapshot(self) -> dict[str, Any]:
        """Return the recording in torch's form."""
        state = state_of(self.allocator)
        segments = [
            {
                "device": 0,
                "address": one.address,
                "total_size": one.size_bytes,
                "allocated_size": sum(b.size_bytes for b in one.blocks if b.state == "active_allocated"),
                "active_size": sum(b.size_bytes for b in one.blocks if b.state != "inactive"),
                "requested_size": sum(b.requested_bytes or 0 for b in one.blocks),
                "stream": one.stream,
                "segment_type": "small" if one.is_small else "large",
                "segment_pool_id": tuple(map(int, one.pool_id.split(","))),
                "is_expandable": one.is_expandable,
                "frames": [],
                "blocks": [
                    {
                        "address": b.address,
                        "size": b.size_bytes,
                        "requested_size": b.requested_bytes or 0,
                        "state": b.state,
                        "frames": [],
                    }
                    for b in one.blocks
                ],
            }
            for one in state.segments
        ]
        events = [{**one, "time_us": 1_700_000_000_000_000 + at} for at, one in enumerate(self.device.events)]
        facts = {
            "PYTORCH_CUDA_ALLOC_CONF": print_settings(self.settings),
            "expandable_segments": self.settings.expandable_segments,
        }
        return {"segments": segments, "device_traces": [events[self.start :]], "allocator_settings": facts}


def write_snapshot(path: Path, num_bytes: int) -> Path:
    """Write a snapshot whose program takes and keeps one block."""
    recorder = Recorder(parse_settings(""))
    recorder.malloc(num_bytes)
    path.write_bytes(pickle.dumps(recorder.snapshot()))
    return path
