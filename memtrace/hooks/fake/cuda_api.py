"""What `torch.cuda` answers: the GPU that was named, with the memory that the fake device holds."""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
import torch.cuda.amp.common

from memtrace.hooks.fake.storages import FakeMemory
from memtrace.schema.options import PredictOptions


class FakeStream:
    """A stream or event that has always finished."""

    cuda_stream = 0
    stream_id = 0
    device_index = 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self.device = torch.device("cuda:0")

    def query(self) -> bool:
        """Everything is done."""
        return True

    def is_capturing(self) -> bool:
        """No graph is captured."""
        return False

    def elapsed_time(self, _end: Any) -> float:
        """Return milliseconds between two events: a constant, nothing is timed."""
        return 1.0

    def record_event(self, event: Any = None) -> Any:
        """Return an event."""
        return event or FakeStream()

    def _nothing(self, *_args: Any, **_kwargs: Any) -> None:
        return None

    synchronize = wait = record = wait_stream = wait_event = _nothing

    def __enter__(self) -> FakeStream:
        return self

    def __exit__(self, *_error: object) -> None:
        return None


_WITHOUT_ANSWER = (
    "set_device init _lazy_init synchronize empty_cache ipc_collect manual_seed manual_seed_all seed seed_all "
    "set_rng_state set_rng_state_all _sleep set_stream set_per_process_memory_fraction "
    "reset_accumulated_memory_stats _check_capability"
)
"""Functions of `torch.cuda` that return nothing."""


def answers(memory: FakeMemory, gpu: PredictOptions) -> dict[str, Any]:
    """Return replacements for functions of `torch.cuda`, by name."""
    total = gpu.gpu_bytes
    major, minor = gpu.capability
    properties = SimpleNamespace(
        name=gpu.gpu_name,
        major=major,
        minor=minor,
        total_memory=total,
        multi_processor_count=100,
        is_integrated=0,
        is_multi_gpu_board=0,
        warp_size=32,
        max_threads_per_multi_processor=2048,
        regs_per_multiprocessor=65536,
        shared_memory_per_block=49152,
        L2_cache_size=50 * 1024**2,
        gcnArchName="",
        uuid="",
    )

    def now(*_args: Any, **_kwargs: Any) -> int:
        return memory.allocated_bytes

    def peak(*_args: Any, **_kwargs: Any) -> int:
        return memory.peak_bytes

    def reset_peak(*_args: Any, **_kwargs: Any) -> None:
        memory.peak_bytes = memory.allocated_bytes

    def stats(*_args: Any, **_kwargs: Any) -> dict[str, int]:
        found: dict[str, int] = defaultdict(int)
        for name in ("allocated_bytes", "reserved_bytes", "active_bytes"):
            found[f"{name}.all.current"] = memory.allocated_bytes
            found[f"{name}.all.peak"] = memory.peak_bytes
        return found

    constants: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "is_initialized": True,
        "is_bf16_supported": (major, minor) >= (8, 0),
        "is_tf32_supported": (major, minor) >= (8, 0),
        "get_device_name": gpu.gpu_name,
        "get_device_capability": (major, minor),
        "get_device_properties": properties,
        "get_arch_list": [f"sm_{major}{minor}"],
        "utilization": 100,
        "memory_summary": "",
        "is_current_stream_capturing": False,
        "can_device_access_peer": True,
        "initial_seed": 0,
        "get_rng_state_all": [],
        **dict.fromkeys(_WITHOUT_ANSWER.split()),
    }
    found = {name: _always(value) for name, value in constants.items()}
    for name in ("current_stream", "default_stream"):
        found[name] = lambda *_args, **_kwargs: FakeStream()
    for name in ("stream", "device"):
        found[name] = _Nothing
    found |= {
        "Stream": FakeStream,
        "Event": FakeStream,
        "get_rng_state": lambda *_args, **_kwargs: torch.zeros(16, dtype=torch.uint8),
        "mem_get_info": lambda *_args, **_kwargs: (max(total - memory.allocated_bytes, 0), total),
        "memory_allocated": now,
        "max_memory_allocated": peak,
        "memory_reserved": now,
        "max_memory_reserved": peak,
        "memory_stats": stats,
        "reset_peak_memory_stats": reset_peak,
        "reset_max_memory_allocated": reset_peak,
    }
    return found


class _Nothing(nullcontext):  # type: ignore[type-arg]
    """`torch.cuda.device` or `torch.cuda.stream`: a context in which nothing is different."""

    idx = 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()


def _always(value: Any) -> Any:
    def answer(*_args: Any, **_kwargs: Any) -> Any:
        return value

    return answer


def install(memory: FakeMemory, gpu: PredictOptions) -> None:
    """Put the answers in the place of the functions. Affects: `torch.cuda`, `torch.accelerator`."""
    cuda: Any = torch.cuda
    for name, replacement in answers(memory, gpu).items():
        setattr(cuda, name, replacement)
        for module in (cuda.memory, cuda.random):
            if hasattr(module, name):
                setattr(module, name, replacement)
    common: Any = torch.cuda.amp.common
    common.amp_definitely_not_available = _always(False)
    accelerator: Any = getattr(torch, "accelerator", None)
    if accelerator is not None:
        device = torch.device("cuda:0")
        for name, value in {
            "is_available": True,
            "device_count": 1,
            "current_accelerator": torch.device("cuda"),
            "current_device_index": 0,
            "current_device_idx": 0,
            "set_device_index": None,
            "set_device_idx": None,
            "synchronize": None,
            "set_stream": None,
        }.items():
            if hasattr(accelerator, name):
                setattr(accelerator, name, _always(value))
        accelerator.current_stream = lambda *_args: FakeStream(device)
