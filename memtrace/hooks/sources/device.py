"""Facts of devices and totals at a moment, without ever initialising an accelerator."""

from __future__ import annotations

import os
import sys
from typing import Any

from memtrace.hooks.parts.as_imported import open_file

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def host_rss_bytes() -> int | None:
    """Return the resident host memory of this process, `None` where the system does not tell it cheaply."""
    try:
        with open_file("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def peak_host_rss_bytes() -> int | None:
    """Return the largest resident host memory that this process has had."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def accelerator(torch: Any, wanted: str) -> str | None:
    """Return the accelerator to record, "cuda" (HIP included) or "xpu", or `None` for the CPU.

    `torch.cuda.is_available()` is not asked: it may start the driver, which breaks forked workers.
    """
    if wanted in ("cuda", "hip"):
        return "cuda"
    if wanted == "auto" and hasattr(torch._C, "_cuda_memorySnapshot") and _has_cuda_device(torch):
        return "cuda"
    history = getattr(getattr(getattr(torch, "xpu", None), "memory", None), "_record_memory_history", None)
    if history is not None and (wanted == "xpu" or (wanted == "auto" and os.path.exists("/dev/dri"))):
        return "xpu" if getattr(torch.xpu, "_is_compiled", bool)() else None
    return None


def _has_cuda_device(torch: Any) -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    if any(os.path.exists(node) for node in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")):
        return True
    count = getattr(torch.cuda, "_device_count_nvml", None)
    return count is not None and count() > 0


def is_initialized(torch: Any, kind: str) -> bool:
    """Return whether the program has initialised this accelerator."""
    return bool(getattr(torch, kind).is_initialized())


def device_records(torch: Any, kind: str) -> list[dict[str, Any]]:
    """Return name, kind and capacity of every device of an accelerator that the program has initialised."""
    api = getattr(torch, kind)
    found = []
    for index in range(api.device_count()):
        facts = api.get_device_properties(index)
        found.append({"name": f"{kind}:{index}", "kind": str(facts.name), "capacity_bytes": int(facts.total_memory)})
    return found


def device_levels(torch: Any, kind: str) -> dict[str, Any]:
    """Return what the allocator of the current device says now, and the most that it has handed out."""
    api = getattr(torch, kind)
    index = api.current_device()
    stats = api.memory_stats(index)
    return {
        "device": f"{kind}:{index}",
        "allocated_bytes": stats.get("allocated_bytes.all.current"),
        "peak_allocated_bytes": stats.get("allocated_bytes.all.peak"),
        "reserved_bytes": stats.get("reserved_bytes.all.current"),
        "num_alloc_retries": stats.get("num_alloc_retries"),
    }


def device_totals(torch: Any, kind: str) -> dict[str, int | None]:
    """Return what the device and its allocator say now: used, reserved and allocated bytes, segments taken so far."""
    api = getattr(torch, kind)
    free, total = api.mem_get_info()
    stats = api.memory_stats()
    return {
        "device_used_bytes": total - free,
        "reserved_bytes": stats.get("reserved_bytes.all.current"),
        "allocated_bytes": stats.get("allocated_bytes.all.current"),
        "num_device_mallocs": stats.get("num_device_alloc"),
    }
