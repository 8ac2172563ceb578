"""A training program's account of its own memory: what memtrace must find without being told.

Bytes are counted by distinct storage. `storage` is the bytes of the storages; `tensor` is numel × itemsize of the
distinct tensors in them, which is less where a storage is padded. Everything is read where the program stands, from the
objects that it holds: no hook, no address of memtrace's. Only tensors on the device that trains count: some optimizers
keep the number of the step on the host.
"""

from __future__ import annotations

import contextlib
import json
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


class NoAccount:
    """Counts nothing: the program as it is recorded."""

    def forward(self) -> contextlib.AbstractContextManager[None]:
        """Surround a forward pass."""
        return contextlib.nullcontext()

    def end_forward(self, model: Any, inputs: tuple[Tensor, ...], outputs: Any) -> None:
        """A forward pass has ended, its backward has not begun."""

    def end_step(self, models: Sequence[Any], optimizer: torch.optim.Optimizer) -> None:
        """The optimizer has stepped."""

    def write(self) -> None:
        """The training has ended."""


class OwnerAccount(NoAccount):
    """Counts parameters, buffers, gradients and optimizer states at the end of each step."""

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._device = device
        self._steps: list[dict[str, dict[str, int]]] = []

    def end_step(self, models: Sequence[Any], optimizer: torch.optim.Optimizer) -> None:
        """Count."""
        parameters = [parameter for model in models for parameter in model.parameters()]
        states = (value for state in optimizer.state.values() for value in state.values())
        self._steps.append(
            {
                name: bytes_of(one for one in plain(tensors) if one.device.type == self._device)
                for name, tensors in {
                    "parameter": parameters,
                    "buffer": (buffer for model in models for buffer in model.buffers()),
                    "gradient": (parameter.grad for parameter in parameters if parameter.grad is not None),
                    "optimizer_state": (value for value in states if isinstance(value, Tensor)),
                }.items()
            }
        )

    def write(self) -> None:
        """Write one record a step."""
        self._path.write_text(json.dumps(self._steps), encoding="utf-8")


class SavedAccount(NoAccount):
    """Counts, at the end of each forward pass, storages that nobody else owns: saved by autograd, or held as output."""

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._device = device
        self._passes: list[dict[str, int]] = []
        self._saved: list[weakref.ref[Tensor]] = []

    def forward(self) -> contextlib.AbstractContextManager[None]:
        """Count what is saved meanwhile. Detached: a saved output would hold its own graph alive."""
        self._saved.clear()
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda packed: packed)

    def _pack(self, tensor: Tensor) -> Tensor:
        packed = tensor.detach()
        self._saved.append(weakref.ref(packed))
        return packed

    def end_forward(self, model: Any, inputs: tuple[Tensor, ...], outputs: Any) -> None:
        """Count, now, since a storage may have been emptied since it was saved (FSDP2 does)."""
        owned = self._storages([*model.parameters(), *model.buffers(), *inputs])
        saved = self._storages(tensor for reference in self._saved if (tensor := reference()) is not None)
        unsaved = self._storages(tensor for tensor in tree_leaves(outputs) if isinstance(tensor, Tensor))
        self._passes.append({"saved": _sum_without(saved, owned), "outputs": _sum_without(unsaved, owned | saved)})

    def _storages(self, tensors: Iterable[Tensor]) -> dict[int, int]:
        return dict(storage_of(tensor) for tensor in plain(tensors) if tensor.device.type == self._device)

    def write(self) -> None:
        """Write one record a forward pass."""
        self._path.write_text(json.dumps(self._passes), encoding="utf-8")


def make_account(device: str, *, owners: Path | None, saved: Path | None) -> NoAccount:
    """Return the account of a device, "cpu" or "cuda", that was asked for."""
    if owners is not None:
        return OwnerAccount(owners, device)
    return SavedAccount(saved, device) if saved is not None else NoAccount()


def bytes_of(tensors: Iterable[Tensor]) -> dict[str, int]:
    """Return the bytes of the distinct storages of these tensors, and of the distinct tensors in them."""
    storages: dict[int, int] = {}
    views: dict[tuple[int, int], int] = {}
    for tensor in plain(tensors):
        address, size = storage_of(tensor)
        if size:
            storages[address] = size
            views[address, tensor.storage_offset()] = tensor.numel() * tensor.element_size()
    return {"storage": sum(storages.values()), "tensor": sum(views.values())}


def _sum_without(storages: dict[int, int], others: dict[int, int]) -> int:
    return sum(size for address, size in storages.items() if address not in others)


def plain(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the tensors that hold the memory: of a distributed one, the part of this rank."""
    for tensor in tensors:
        yield tensor.to_local() if hasattr(tensor, "to_local") else tensor


def storage_of(tensor: Tensor) -> tuple[int, int]:
    """Return address and bytes of a tensor's storage."""
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()
