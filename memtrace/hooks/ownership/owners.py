"""Owners: which storage is which parameter, buffer, gradient, optimizer state or input, by address. Keeps no tensor.

A row is a tensor of one category: gradients that are views of one bucket have a row each, tied parameters one row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from memtrace.hooks.ownership.dtensor_layout import Placements
from memtrace.hooks.parts.chunk import Row
from memtrace.schema.names import Category
from memtrace.schema.shapes import shape_text

_PARTS_OF_LAYOUTS = {
    "torch.sparse_coo": ("_indices", "_values"),
    **dict.fromkeys(("torch.sparse_csr", "torch.sparse_bsr"), ("crow_indices", "col_indices", "values")),
    **dict.fromkeys(("torch.sparse_csc", "torch.sparse_bsc"), ("ccol_indices", "row_indices", "values")),
    "torch._mkldnn": (),
    "nested": ("values",),
}
"""Tensors without a storage of their own, and the methods that give the tensors which they consist of."""

Owned = tuple[Category, str, Any]
"""What a tensor is, its name, and the tensor."""

Label = tuple[Category, str, "str | tuple[Any, ...] | None"]
"""Category, name of a parameter or other thing, and what of it is meant: several tensors have one label together."""

_PARAMETER, _GRADIENT, _STATE = Category.PARAMETER, Category.GRADIENT, Category.OPTIMIZER_STATE
_MAX_DEPTH = 3
"""So deep containers are looked through."""
_MAX_HUNG = 64


class Found:
    """Tensors with an owner, in the order of their rows; a parameter that is met again was there already.

    It is made at each step for everything there is, so labels are what costs least: names are put together for rows.
    """

    def __init__(self, torch: Any, names: Mapping[int, str]) -> None:
        """Begin; `names` are of parameters, by identity."""
        self.labels: list[Label] = []
        self.tensors: list[Any] = []
        self._tensor = torch.Tensor
        self._plain_kinds = plain_kinds(torch)
        self._hung_kinds = torch.Tensor, list, tuple, dict
        self._names = names
        self._met: set[int] = set()

    def names(self) -> Iterator[tuple[Category, str]]:
        """Yield category and name of each tensor."""
        for category, name, keys in self.labels:
            if isinstance(keys, tuple):
                for key in keys:
                    yield category, f"{key} of {name}"
            else:
                yield category, name if keys is None else f"{keys} of {name}"

    def add(self, category: Category, name: str, tensor: Any, key: str | None = None) -> None:
        """Add a tensor; with a key, it is that of what has the name."""
        self.labels.append((category, name, key))
        self.tensors.append(tensor)

    def add_parameters(self, parameters: Iterable[tuple[str, Any]]) -> None:
        """Add parameters and their gradients."""
        labels, tensors, met, plain_kinds = self.labels, self.tensors, self._met, self._plain_kinds
        for name, parameter in parameters:
            if (key := id(parameter)) in met:
                continue
            met.add(key)
            labels.append((_PARAMETER, name, None))
            tensors.append(parameter)
            # `.grad` of a tensor that is not a leaf warns on stderr; parameters are leaves unless swapped out.
            if parameter.is_leaf and (gradient := parameter.grad) is not None:
                labels.append((_GRADIENT, name, None))
                tensors.append(gradient)
            if type(parameter) in plain_kinds and (hung := parameter.__dict__):
                self._add_hung(name, hung)

    def _add_hung(self, name: str, hung: Mapping[str, Any]) -> None:
        """Add what a program hangs on a parameter: gradients of each sample, main gradients, averages, states."""
        for key, value in list(hung.items()):
            if key != "grad" and isinstance(value, self._hung_kinds) and not _is_long(value):
                category = _GRADIENT if "grad" in key else _STATE
                for _, tensor in tensors_in(value, key, self._tensor):
                    if id(tensor) not in self._met:
                        self.add(category, name, tensor, key)

    def add_optimizer(self, optimizer: Any) -> None:
        """Add what an optimizer steps, and its states."""
        states, plain_kinds = optimizer.state, self._plain_kinds
        for name, parameter in self._stepped(optimizer):
            if id(parameter) not in self._met:
                self.add_parameters([(name, parameter)])
            state = states.get(parameter)
            if not state:
                continue
            if type(state) is dict and plain_kinds.issuperset(map(type, state.values())):
                self.labels.append((_STATE, name, tuple(state)))
                self.tensors += state.values()
            else:
                self._add_state(name, state)

    def _stepped(self, optimizer: Any) -> Iterator[tuple[str, Any]]:
        names = self._names
        for group_number, group in enumerate(optimizer.param_groups):
            for number, parameter in enumerate(group["params"]):
                name = names.get(id(parameter))
                yield f"group {group_number} parameter {number}" if name is None else name, parameter

    def _add_state(self, name: str, state: Any) -> None:
        for key, tensor in tensors_in(state, "state", self._tensor):
            self.add(_STATE, name, tensor, key)


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
        owned = ((*named, tensor) for named, tensor in zip(found.names(), found.tensors, strict=True))
        return list(_rows(owned, now_ns, step))


def _is_long(value: Any) -> bool:
    """Return whether a container holds more than anybody hangs on a parameter for its training."""
    return isinstance(value, (list, tuple, dict)) and len(value) > _MAX_HUNG


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
                device, *others = lasting_row(category, name, part, size)
                yield (now_ns, step, device, address, *others, whole_shape, placement)


def lasting_row(category: Category, name: str, part: Any, size: int) -> Row:
    """Return a row of owners without time, step, address and placement, for a tensor whose storage has such a size."""
    # What is held for communication is so with its whole storage, whoever else has views of it.
    is_whole = category is Category.COMMUNICATION
    return (
        device_name(part.device),
        size,
        size if is_whole else part.numel() * part.element_size(),
        str(category),
        name,
        dtype_name(part.dtype),
        None if is_whole else shape_text(part.shape),
    )


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


def plain_kinds(torch: Any) -> frozenset[type]:
    """Return the classes of tensors that `plain_tensors` yields as they are, wherever they have a storage."""
    return frozenset({torch.Tensor, getattr(torch.nn, "Parameter", torch.Tensor)})


def plain_check(torch: Any) -> Callable[[Any], bool]:
    """Return what tells quickly of most values whether they are tensors that `plain_tensors` yields as they are.

    One that has no memory, as on the device "meta", may be among them.
    """
    kinds, strided, is_wrapper = plain_kinds(torch), torch.strided, _transform_check(torch)

    def is_plain(value: Any) -> bool:
        return type(value) in kinds and value.layout is strided and not value.is_nested and not is_wrapper(value)

    return is_plain


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
        layout = "nested" if getattr(tensor, "is_nested", False) else str(getattr(tensor, "layout", None))
        parts = _PARTS_OF_LAYOUTS.get(layout)
        if parts is None:
            if _is_stored(tensor):
                yield tensor
        else:
            yield from (getattr(tensor, name)() for name in parts)


def _is_stored(tensor: Any) -> bool:
    """Whether a tensor has bytes of its own: a subclass of the program's may wrap others that it alone knows of."""
    if type(tensor).__name__ in ("Tensor", "Parameter") and not _transform_check(sys.modules["torch"])(tensor):
        return True
    try:
        tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return False
    return True


@cache
def _transform_check(torch: Any) -> Callable[[Any], bool]:
    """Return what says whether a tensor is one that a transform of functorch has put around others, or did once."""
    functorch = getattr(torch._C, "_functorch", None)
    check: Callable[[Any], bool] = getattr(functorch, "is_functorch_wrapped_tensor", lambda _tensor: False)
    return check


def device_name(device: Any) -> str:
    """Return a device as memtrace writes it: "cpu", "cuda:0"."""
    return str(device.type) if device.index is None else f"{device.type}:{device.index}"


def dtype_name(dtype: Any) -> str:
    """Return a dtype without its module: "bfloat16"."""
    return str(dtype).removeprefix("torch.")
