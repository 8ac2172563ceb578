"""What `torch.cuda` says of memory: what the fake device holds, rounded as the caching allocator rounds it.

How much is reserved follows only later, from the model of the allocator. While the program runs, reserved memory is
told as the most that was allocated, in whole segments of 2 MiB, which is a lower bound.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.fake.events.storages import FakeMemory

_SEGMENT_BYTES = 2 * 1024**2
_STATISTICS = "allocated_bytes active_bytes requested_bytes reserved_bytes inactive_split_bytes"
_COUNTS = "allocation segment active inactive_split oversize_allocations oversize_segments"
_PLAIN_COUNTS = "num_alloc_retries num_ooms num_sync_all_streams num_device_alloc num_device_free max_split_size"

Answer = Callable[..., Any]


class CudaMemory:
    """The answers, in the names of `torch.cuda`."""

    def __init__(self, memory: FakeMemory, total_bytes: int) -> None:
        self._memory = memory
        self._total_bytes = total_bytes

    def memory_allocated(self, *_args: Any, **_kwargs: Any) -> int:
        """Return the bytes that are allocated now."""
        return self._memory.allocated_bytes

    def max_memory_allocated(self, *_args: Any, **_kwargs: Any) -> int:
        """Return the most bytes that were allocated since the last reset."""
        return self._memory.peak_bytes

    def memory_reserved(self, *_args: Any, **_kwargs: Any) -> int:
        """Return a lower bound of the bytes that are reserved."""
        return -(-self._memory.peak_bytes // _SEGMENT_BYTES) * _SEGMENT_BYTES

    def reset_peak_memory_stats(self, *_args: Any, **_kwargs: Any) -> None:
        """Begin again to look for a peak."""
        self._memory.peak_bytes = self._memory.allocated_bytes

    def mem_get_info(self, *_args: Any, **_kwargs: Any) -> tuple[int, int]:
        """Return free and total bytes of the GPU."""
        return max(self._total_bytes - self.memory_reserved(), 0), self._total_bytes

    def memory_stats(self, *_args: Any, **_kwargs: Any) -> OrderedDict[str, int]:
        """Return the statistics that follow from what is allocated; what is not counted is 0."""
        found: OrderedDict[str, int] = OrderedDict()
        for name in (*_STATISTICS.split(), *_COUNTS.split()):
            now, peak = self._numbers(name)
            for kind, value in {"current": now, "peak": peak, "allocated": 0, "freed": 0}.items():
                found[f"{name}.all.{kind}"] = value
        found.update(dict.fromkeys(_PLAIN_COUNTS.split(), 0))
        return found

    def _numbers(self, name: str) -> tuple[int, int]:
        if name == "reserved_bytes":
            return self.memory_reserved(), self.memory_reserved()
        if name in ("allocated_bytes", "active_bytes", "requested_bytes"):
            return self._memory.allocated_bytes, self._memory.peak_bytes
        return 0, 0

    def memory_usage(self, *_args: Any, **_kwargs: Any) -> int:
        """Return the share of the GPU's memory that is reserved, in percent."""
        return 100 * self.memory_reserved() // self._total_bytes

    def memory_summary(self, *_args: Any, **_kwargs: Any) -> str:
        """Return a line of text."""
        return f"predicted: {self._memory.allocated_bytes} B allocated, {self._memory.peak_bytes} B at the peak"


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


def answers(memory: FakeMemory, total_bytes: int) -> dict[str, Answer]:
    """Return replacements for functions of `torch.cuda.memory`, by name."""
    found = CudaMemory(memory, total_bytes)
    same: dict[str, Answer] = {
        "max_memory_reserved": found.memory_reserved,
        "memory_cached": found.memory_reserved,
        "max_memory_cached": found.memory_reserved,
        "device_memory_used": found.memory_reserved,
        "get_memory_info": found.mem_get_info,
        "reset_max_memory_allocated": found.reset_peak_memory_stats,
        "reset_max_memory_cached": found.reset_peak_memory_stats,
        "memory_stats_as_nested_dict": lambda *_args, **_kwargs: {},
        "host_memory_stats": lambda *_args, **_kwargs: OrderedDict(),
        "memory_snapshot": lambda *_args, **_kwargs: [],
        "list_gpu_processes": lambda *_args, **_kwargs: "",
        "get_allocator_backend": lambda: "native",
        "get_per_process_memory_fraction": lambda *_args, **_kwargs: 1.0,
        "_snapshot": lambda *_args, **_kwargs: {"segments": [], "device_traces": []},
    }
    silent = (
        "empty_cache set_per_process_memory_fraction reset_accumulated_memory_stats _record_memory_history "
        "_dump_snapshot reset_peak_host_memory_stats reset_accumulated_host_memory_stats empty_host_cache"
    )
    own = {name: getattr(found, name) for name in dir(CudaMemory) if not name.startswith("_")}
    return {**dict.fromkeys(silent.split(), _nothing), **same, **own}


def install(memory: FakeMemory, total_bytes: int) -> None:
    """Put the answers in place. Affects: `torch.cuda`, `torch.cuda.memory`, `torch.accelerator`."""
    accelerator = getattr(torch, "accelerator", None)
    for name, answer in answers(memory, total_bytes).items():
        for module in (torch.cuda, torch.cuda.memory, accelerator, getattr(accelerator, "memory", None)):
            if module is not None and hasattr(module, name):
                setattr(module, name, answer)
