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

Label = tuple[Category, str, "str | None", "str | None", "str | None"]
"""Category, name of a parameter or other thing, what of it is meant, and shape and placement of a distributed whole."""

_PARAMETER, _BUFFER, _GRADIENT, _STATE = (
    Category.PARAMETER,
    Category.BUFFER,
    Category.GRADIENT,
    Category.OPTIMIZER_STATE,
)
_MAX_DEPTH = 3
"""So deep containers are looked through."""


class Found:
    """Tensors with an owner, in the order of their rows; a parameter that is met again was there already."""

    def __init__(self, torch: Any, names: Mapping[int, str]) -> None:
        """Begin; `names` are of parameters, by identity."""
        self.labels: list[Label] = []
        self.tensors: list[Any] = []
        self._tensor = torch.Tensor
        self._names = names
        self._met: set[int] = set()

    def add(self, category: Category, name: str, tensor: Any, of: str | None = None) -> None:
        """Add a tensor; with `of`, it is that of what has the name."""
        self.labels.append((category, name, of, None, None))
        self.tensors.append(tensor)

    def add_parameter(self, name: str, parameter: Any) -> None:
        """Add a parameter and its gradient."""
        key = id(parameter)
        if key in self._met:
            return
        self._met.add(key)
        self.labels.append((_PARAMETER, name, None, None, None))
        self.tensors.append(parameter)
        # `.grad` of a tensor that is not a leaf warns on stderr; parameters are leaves unless swapped out.
        if parameter.is_leaf and (gradient := parameter.grad) is not None:
            self.labels.append((_GRADIENT, name, None, None, None))
            self.tensors.append(gradient)

    def add_root(self, root: Any) -> None:
        """Add the parameters, gradients and buffers of a module."""
        for name, parameter in root.named_parameters():
            self.add_parameter(self._names.get(id(parameter), name), parameter)
        for name, buffer in root.named_buffers():
            self.add(_BUFFER, name, buffer)

    def add_optimizer(self, optimizer: Any) -> None:
        """Add what an optimizer steps, and its states."""
        names, states = self._names, optimizer.state
        for group_number, group in enumerate(optimizer.param_groups):
            for number, parameter in enumerate(group["params"]):
                name = names.get(id(parameter))
                if name is None:
                    name = f"group {group_number} parameter {number}"
                self.add_parameter(name, parameter)
                if state := states.get(parameter):
                    self._add_state(name, state)

    def _add_state(self, name: str, state: Any) -> None:
        labels, tensors, kind = self.labels, self.tensors, self._tensor
        if not isinstance(state, Mapping):
            state = {"state": state}
        for key, value in state.items():
            if isinstance(value, kind):
                labels.append((_STATE, name, str(key), None, None))
                tensors.append(value)
            elif isinstance(value, (Mapping, list, tuple)):
                for inner, tensor in tensors_in(value, str(key), kind, depth=1):
                    self.add(_STATE, name, tensor, inner)


class OwnerRows:
    """Rows of the `owners` table for a few tensors: inputs, what is held for communication, one optimizer."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.names: dict[int, str] = {}
        """Names of parameters by identity, from the last sweep."""

    def rows_of(self, found: Iterable[Owned], *, now_ns: int, step: int) -> list[Row]:
        """Return rows for tensors that somebody else found."""
        return list(_rows(found, now_ns, step))

    def of_optimizer(self, optimizer: Any, *, now_ns: int, step: int) -> list[Row]:
        """Return rows for the gradients and states of one optimizer, under the names known from the last sweep."""
        found = Found(self._torch, self.names)
        found.add_optimizer(optimizer)
        owned = ((label[0], name_of(label), tensor) for label, tensor in zip(found.labels, found.tensors, strict=True))
        return list(_rows(owned, now_ns, step))

    def of_inputs(self, values: Iterable[Any], *, now_ns: int, step: int) -> list[Row]:
        """Return rows for the tensors among the arguments of a root module."""
        found = ((Category.INPUT, name, tensor) for name, tensor in tensors_in(values, "input", self._torch.Tensor))
        return list(_rows(found, now_ns, step))


def _rows(found: Iterable[Owned], now_ns: int, step: int) -> Iterator[Row]:
    seen: set[tuple[int, int, Category]] = set()
    placements = Placements()
    for category, name, tensor in found:
        whole_shape, placement = placements.of(tensor)
        for part in plain_tensors(tensor):
            storage = part.untyped_storage()
            address, size = storage.data_ptr(), storage.nbytes()
            key = address, 0 if category is Category.COMMUNICATION else part.storage_offset(), category
            # Tied parameters are one tensor: it is owned once, by its first name.
            if address and size and key not in seen:
                seen.add(key)
                device, *others = lasting_row((category, name, None, whole_shape, placement), part, size)
                yield (now_ns, step, device, address, *others)


def lasting_row(label: Label, part: Any, size: int) -> Row:
    """Return a row of owners without time, step and address, for a tensor whose storage has so many bytes."""
    category, _, _, whole_shape, placement = label
    # What is held for communication is so with its whole storage, whoever else has views of it.
    is_whole = category is Category.COMMUNICATION
    return (
        device_name(part.device),
        size,
        size if is_whole else part.numel() * part.element_size(),
        str(category),
        name_of(label),
        dtype_name(part.dtype),
        None if is_whole else shape_text(part.shape),
        whole_shape,
        placement,
    )


def name_of(label: Label) -> str:
    """Return the name in a row: that of the thing, or "state of thing"."""
    return label[1] if label[2] is None else f"{label[2]} of {label[1]}"


def tensors_in(value: Any, name: str, kind: type, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the tensors in a container, each with the last key that led to it."""
    if isinstance(value, kind):
        yield name, value
    elif depth < _MAX_DEPTH and isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, str(key), kind, depth + 1)
    elif depth < _MAX_DEPTH and isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item, name, kind, depth + 1)


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
