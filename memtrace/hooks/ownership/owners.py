"""Owners: which storage is which parameter, buffer, gradient, optimizer state or input, by address. Keeps no tensor.

A row is a tensor of one category: gradients that are views of one bucket have a row each, tied parameters one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from memtrace.hooks.ownership.dtensor_layout import Placements
from memtrace.hooks.parts.chunk import Row
from memtrace.schema.names import Category
from memtrace.schema.shapes import shape_text

Owned = tuple[Category, str, Any]
"""What a tensor is, its name, and the tensor."""

_PARAMETER = str(Category.PARAMETER)


class OwnerSweep:
    """Reads the addresses of everything that modules and optimizers own, at one moment."""

    def __init__(self, torch: Any) -> None:
        self._tensor = torch.Tensor
        self._names: dict[int, str] = {}

    def rows(
        self,
        roots: Iterable[Any],
        optimizers: Iterable[Any],
        *,
        held: Iterable[Owned],
        names: Iterable[tuple[int, str]],
        now_ns: int,
        step: int,
    ) -> list[Row]:
        """Return rows of the `owners` table for all roots and optimizers, and for what is held for communication.

        `names` are of parameters, by identity, that no root may hold now.
        """
        roots, optimizers, held = list(roots), list(optimizers), list(held)
        self._names = dict(names) | _parameter_names(roots)
        # A gathered parameter takes the place of its shard in the module.
        gathered = {address for owned in held for address in _communication_addresses(owned)}
        found = (*held, *self._of_roots(roots), *self._of_optimizers(optimizers))
        rows = self._rows(found, now_ns, step)
        return [row for row in rows if not (row[3] in gathered and row[6] == _PARAMETER)]

    def rows_of(self, found: Iterable[Owned], *, now_ns: int, step: int) -> list[Row]:
        """Return rows for tensors that somebody else found."""
        return list(self._rows(found, now_ns, step))

    def of_optimizer(self, optimizer: Any, *, now_ns: int, step: int) -> list[Row]:
        """Return rows for the gradients and states of one optimizer, under the names known from the last sweep."""
        return list(self._rows(self._of_optimizers([optimizer]), now_ns, step))

    def of_inputs(self, values: Iterable[Any], *, now_ns: int, step: int) -> list[Row]:
        """Return rows for the tensors among the arguments of a root module."""
        found = ((Category.INPUT, name, tensor) for name, tensor in self._tensors(values, "input"))
        return list(self._rows(found, now_ns, step))

    def _rows(self, found: Iterable[Owned], now_ns: int, step: int) -> Iterator[Row]:
        seen: set[tuple[int, int, str]] = set()
        placements = Placements()
        for category, name, tensor in found:
            # What is held for communication is so with its whole storage, whoever else has views of it.
            is_whole = category is Category.COMMUNICATION
            whole_shape, placement = placements.of(tensor)
            for part in plain_tensors(tensor):
                storage = part.untyped_storage()
                address, size = storage.data_ptr(), storage.nbytes()
                # Tied parameters are one tensor: it is owned once, by its first name.
                key = address, 0 if is_whole else part.storage_offset(), str(category)
                if not address or not size or key in seen:
                    continue
                seen.add(key)
                yield (
                    now_ns,
                    step,
                    device_name(part.device),
                    address,
                    size,
                    size if is_whole else part.numel() * part.element_size(),
                    str(category),
                    name,
                    dtype_name(part.dtype),
                    None if is_whole else shape_text(part.shape),
                    whole_shape,
                    placement,
                )

    def _of_roots(self, roots: Iterable[Any]) -> Iterator[Owned]:
        for root in roots:
            for parameter in root.parameters():
                yield from self._of_parameter(parameter, self._names.get(id(parameter), "parameter"))
            for name, buffer in root.named_buffers():
                yield Category.BUFFER, name, buffer

    def _of_parameter(self, parameter: Any, name: str) -> Iterator[Owned]:
        yield Category.PARAMETER, name, parameter
        # `.grad` of a tensor that is not a leaf warns on stderr; parameters are leaves unless swapped out.
        if parameter.is_leaf and parameter.grad is not None:
            yield Category.GRADIENT, name, parameter.grad

    def _of_optimizers(self, optimizers: Iterable[Any]) -> Iterator[Owned]:
        for optimizer in optimizers:
            for group_number, group in enumerate(optimizer.param_groups):
                for number, parameter in enumerate(group["params"]):
                    name = self._names.get(id(parameter), f"group {group_number} parameter {number}")
                    yield from self._of_parameter(parameter, name)
                    state = optimizer.state.get(parameter)
                    if state:
                        for key, tensor in self._tensors(state, "state"):
                            yield Category.OPTIMIZER_STATE, f"{key} of {name}", tensor

    def _tensors(self, value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
        if isinstance(value, self._tensor):
            yield name, value
        elif depth < 3 and isinstance(value, Mapping):
            for key, item in value.items():
                yield from self._tensors(item, str(key), depth + 1)
        elif depth < 3 and isinstance(value, (list, tuple)):
            for item in value:
                yield from self._tensors(item, name, depth + 1)


def plain_tensors(tensor: Any) -> Iterator[Any]:
    """Yield the tensors with storage behind a tensor: itself, a DTensor's local part, a wrapper's inner tensors.

    One of a fake mode has none, whatever device it says.
    """
    local = getattr(tensor, "_local_tensor", None)
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if local is not None:
        yield from plain_tensors(local)
    elif flatten is not None:
        for attribute in flatten()[0]:
            yield from plain_tensors(getattr(tensor, attribute))
    elif tensor.device.type != "meta" and getattr(tensor, "fake_mode", None) is None:
        yield tensor


def device_name(device: Any) -> str:
    """Return a device as memtrace writes it: "cpu", "cuda:0"."""
    return str(device.type) if device.index is None else f"{device.type}:{device.index}"


def dtype_name(dtype: Any) -> str:
    """Return a dtype without its module: "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def _communication_addresses(owned: Owned) -> Iterator[int]:
    if owned[0] is Category.COMMUNICATION:
        for part in plain_tensors(owned[2]):
            yield part.untyped_storage().data_ptr()


def _parameter_names(roots: Iterable[Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    for root in roots:
        for name, parameter in root.named_parameters():
            names.setdefault(id(parameter), name)
    return names
