"""Random generators of the fake device: a program may make them, seed them and keep their state; they draw nothing."""

from __future__ import annotations

from typing import Any

import torch

from memtrace.hooks.fake.events.gpu_number import GpuNumber

_HostGenerator: Any = torch.Generator
_STATE_BYTES = 16
"""Size of the state of CUDA's generator: a seed and an offset."""


class _Kind(type(_HostGenerator)):  # type: ignore[misc]
    """Takes torch's own generators, such as `torch.default_generator`, for instances as well."""

    def __instancecheck__(cls, one: Any) -> bool:
        return isinstance(one, _HostGenerator)


class Generator(_HostGenerator, metaclass=_Kind):  # type: ignore[misc]
    """Stands in for `torch.Generator`: one for "cuda" is a generator of the host that says it is CUDA's."""

    _gpu = GpuNumber()

    def __new__(cls, device: Any = "cpu") -> Any:
        """Return a generator; one of the host is torch's own."""
        is_cuda = isinstance(device, int) or torch.device(device).type == "cuda"
        return _HostGenerator.__new__(cls) if is_cuda else _HostGenerator(device)

    def __init__(self, device: Any = "cpu") -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:
        """The device that the program uses."""
        return torch.device(self._gpu.name)

    def get_state(self) -> torch.Tensor:
        """Return a state of the size that CUDA's has."""
        return torch.zeros(_STATE_BYTES, dtype=torch.uint8)

    def set_state(self, _state: Any) -> Generator:
        """Take a state and leave it."""
        return self

    def clone_state(self) -> Generator:
        """Return another generator."""
        return Generator("cuda")

    graphsafe_get_state = clone_state

    def graphsafe_set_state(self, _state: Any) -> Generator:
        """Take a state and leave it."""
        return self


def is_fake(generator: Any) -> bool:
    """Return whether this is a generator of the fake device, which no operator can be given."""
    return type(generator) is Generator


def install(gpu: GpuNumber) -> None:
    """Put the class in place. Affects: `torch.Generator`, `torch.cuda`'s default generators and their states."""
    module: Any = torch
    module.Generator, Generator._gpu = Generator, gpu
    generator = Generator("cuda")
    cuda: Any = torch.cuda
    cuda.default_generators = (generator,) * gpu.count
    for name, answer in {
        "get_rng_state": lambda *_args, **_kwargs: generator.get_state(),
        "get_rng_state_all": lambda: [generator.get_state()] * gpu.count,
    }.items():
        setattr(cuda, name, answer)
        setattr(cuda.random, name, answer)
