"""What the program asks of the caching allocator while it runs: settings, and the share of the memory that it may take.

C++ would keep them for the accelerator that is not there. They become facts of the trace, by which the requests are put
through the model of the allocator later, as they are by the environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.fake.events.storages import FakeMemory

_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
_SETTERS = ("_accelerator_setAllocatorSettings", "_cuda_cudaCachingAllocator_set_allocator_settings")
"""Names of torch's function in C++, the newest first."""

Warn = Callable[[str, str], None]


class AskedSettings:
    """Settings that a program makes by functions of torch."""

    def __init__(self, memory: FakeMemory, warn: Warn) -> None:
        self._memory = memory
        self._warn = warn
        self._texts: list[str] = []
        self._fraction: float | None = None
        self._was_late = False

    def install(self) -> None:
        """Put these in the place of torch's functions. Affects: `torch._C`, `torch.cuda`, `torch.cuda.memory`."""
        for name in _SETTERS:
            setattr(torch._C, name, self.set_text)
        for module in (torch.cuda, torch.cuda.memory):
            setattr(module, "set_per_process_memory_fraction", self.set_fraction)  # noqa: B010 (torch types it)
            setattr(module, "get_per_process_memory_fraction", self.fraction)  # noqa: B010 (torch types it)

    def set_text(self, text: str) -> None:
        """Take settings as in PYTORCH_ALLOC_CONF; what they do not name stays as it was."""
        self._note_late()
        self._texts.append(text)

    def set_fraction(self, fraction: float, _device: Any = None) -> None:
        """Limit what may be reserved to a share of the memory of the GPU."""
        if not isinstance(fraction, float):
            raise TypeError("Invalid type for fraction argument, must be `float`")
        if not 0 <= fraction <= 1:
            raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
        self._note_late()
        self._fraction = fraction

    def fraction(self, _device: Any = None) -> float:
        """Return the share that may be reserved."""
        return 1.0 if self._fraction is None else self._fraction

    def facts(self) -> dict[str, Any]:
        """Return the header fields that say so; none if the program asked for nothing."""
        found: dict[str, Any] = {}
        if self._texts:
            environment = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
            found["PYTORCH_CUDA_ALLOC_CONF"] = ",".join(one for one in (environment, *self._texts) if one)
        if self._fraction is not None:
            found["per_process_memory_fraction"] = self._fraction
        return {"allocator_settings": found} if found else {}

    def _note_late(self) -> None:
        if self._memory.peak_bytes and not self._was_late:
            self._was_late = True
            message = "allocator settings were made after memory was allocated, and were taken to hold from the start"
            self._warn("predicted-settings", message)
