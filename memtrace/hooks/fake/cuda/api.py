"""What `torch.cuda` answers of the device: that it is there, and that it is the GPU that was named."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.cuda.amp.common

from memtrace.hooks.fake.cuda import accelerator, generators, streams, symbols
from memtrace.hooks.fake.cuda import memory as cuda_memory
from memtrace.hooks.fake.cuda.accelerator import always
from memtrace.hooks.fake.events.gpu_number import GpuNumber
from memtrace.hooks.fake.events.storages import FakeMemory
from memtrace.schema.gpu_cards import CARDS, LIMITS, card_like
from memtrace.schema.options import PredictOptions

_WITHOUT_ANSWER = (
    "init _lazy_init synchronize ipc_collect manual_seed manual_seed_all seed seed_all set_rng_state "
    "set_rng_state_all _sleep set_stream _set_stream_by_id _check_capability set_sync_debug_mode"
)
"""Functions of `torch.cuda` that return nothing."""

_CUDA_VERSIONS = (((2, 11), "13.0"), ((2, 8), "12.8"), ((2, 7), "12.6"), ((2, 5), "12.4"), ((0, 0), "12.1"))
"""CUDA of the builds that `pip install torch` gives on Linux, from which torch on: that of torchvision and the like."""
_CUDNN_VERSION = 91002
_NCCL_VERSION = (2, 27, 5)
_USUAL_CARD = CARDS["a100-80gb"]
"""What a GPU is taken to be that no card here is like."""


def properties(gpu: PredictOptions) -> SimpleNamespace:
    """Return what `get_device_properties` says."""
    major, minor = gpu.capability
    card = card_like(gpu.gpu_name, gpu.capability) or _USUAL_CARD
    limits = LIMITS.get(card.capability, LIMITS[_USUAL_CARD.capability])
    return SimpleNamespace(
        name=gpu.gpu_name,
        major=major,
        minor=minor,
        total_memory=gpu.gpu_bytes,
        multi_processor_count=card.multiprocessors,
        is_integrated=0,
        is_multi_gpu_board=0,
        warp_size=32,
        max_threads_per_multi_processor=limits.threads,
        regs_per_multiprocessor=65536,
        shared_memory_per_block=49152,
        shared_memory_per_block_optin=limits.shared_block_bytes,
        shared_memory_per_multiprocessor=limits.shared_bytes,
        L2_cache_size=card.l2_bytes,
        gcnArchName="",
        uuid="",
    )


def answers(gpu: PredictOptions) -> dict[str, Any]:
    """Return what functions of `torch.cuda` return, by name."""
    major, minor = gpu.capability
    return {
        "is_available": True,
        "device_count": gpu.gpus_per_node,
        "is_initialized": True,
        "is_tf32_supported": (major, minor) >= (8, 0),
        "get_device_name": gpu.gpu_name,
        "get_device_capability": (major, minor),
        "get_device_properties": properties(gpu),
        "get_arch_list": [f"sm_{major}{minor}"],
        "get_gencode_flags": "",
        "utilization": 100,
        "temperature": 50,
        "power_draw": 300_000,
        "clock_rate": 1_500,
        "is_current_stream_capturing": False,
        "can_device_access_peer": True,
        "initial_seed": 0,
        "get_sync_debug_mode": 0,
        **dict.fromkeys(_WITHOUT_ANSWER.split()),
    }


def _bf16_answer(capability: tuple[int, int]) -> Callable[..., bool]:
    """Return `is_bf16_supported`: below compute capability 8.0 bfloat16 is emulated, and so supported all the same."""

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    return is_bf16_supported


def install(memory: FakeMemory, gpu: PredictOptions, warn: Callable[[str, str], None]) -> None:
    """Put the answers in the place of the functions. Affects: `torch.cuda`, `torch.accelerator`, `torch.backends`."""
    cuda: Any = torch.cuda
    for name, value in answers(gpu).items():
        for module in (cuda, cuda.random):
            if hasattr(module, name):
                setattr(module, name, always(value))
    calls = accelerator.index_calls(memory.gpu)
    cuda.current_device, cuda.set_device = calls["getDevice"], calls["setDevice"]
    cuda.is_bf16_supported = _bf16_answer(gpu.capability)
    cuda_memory.install(memory, gpu.gpu_bytes)
    streams.install(warn, memory.gpu)
    generators.install(memory.gpu)
    common: Any = torch.cuda.amp.common
    common.amp_definitely_not_available = always(False)
    accelerator.install(memory.gpu, gpu.capability)


def cuda_version(torch_version: str) -> str:
    """Return the version of CUDA that a torch without one says it was built with.

    Libraries that were built for it, such as torchvision, refuse to be imported with another one.

    >>> cuda_version("2.13.0+cpu"), cuda_version("2.7.1")
    ('13.0', '12.6')
    """
    found = tuple(int(part) for part in re.findall(r"\d+", torch_version)[:2])
    return next(cuda for since, cuda in _CUDA_VERSIONS if found >= since)


def install_versions(gpu: GpuNumber) -> None:
    """Say that torch was built with CUDA. Last of all: parts of torch that are imported after it would look for it."""
    version: Any = torch.version
    if version.cuda is None:
        version.cuda = cuda_version(torch.__version__)
    symbols.install(gpu, version.cuda)
    cuda: Any = torch.cuda
    cuda.nccl.version = always(_NCCL_VERSION)
    backend: Any = torch.backends.cuda
    backend.is_built = always(True)
    cudnn: Any = torch.backends.cudnn
    cudnn.version, cudnn.is_available = always(_CUDNN_VERSION), always(True)
    # Recurrent layers ask whether cuDNN takes a tensor before they call what only cuDNN has.
    cudnn.is_acceptable = always(False)
