"""What is known of small whole numbers and flags on the device: what came from the host, and what follows from it.

No kernel runs, so a mask, a length or an index that a program makes of its batch would be zeros, and with it every
shape that hangs on it. What is copied over and small is therefore kept beside its storage, until something writes into
that; an operator on numbers that are all known runs on the host instead, and its result is copied over in its turn.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

_MOST_BYTES = 1 << 20
"""Largest storage that is kept: ids and masks of a batch, and no activations."""

_MOST_OF_FLOATS = 1 << 18
"""The same of floating numbers that are all the same, such as a mask before it becomes flags: most are no mask."""

Kept = tuple[Any, "int | None", Any]
"""Weak reference to a storage, the version of its tensor, and its bytes on the host."""


class Followed:
    """The numbers that are known, by storage."""

    def __init__(self) -> None:
        self._kept: dict[int, Kept] = {}

    def keep(self, tensor: Any, values: Any) -> None:
        """Keep what was written into a tensor that is all of its storage; other values than these are not known."""
        storage = tensor.untyped_storage()
        self._kept.pop(storage._cdata, None)
        if not _is_small(tensor) or tensor.numel() * tensor.element_size() != storage.nbytes():
            return
        held = torch.UntypedStorage(storage.nbytes())
        view = torch.empty(0, dtype=tensor.dtype).set_(held, tensor.storage_offset(), tensor.shape, tensor.stride())
        view.copy_(values)
        key = storage._cdata
        gone = weakref.ref(storage, lambda _: self._kept.pop(key, None))
        self._kept[key] = gone, _version(tensor), held

    def of(self, tensor: Any) -> Any | None:
        """Return the values of a tensor as a tensor of the host; `None` where they are not known."""
        storage = tensor.untyped_storage()
        found = self._kept.get(storage._cdata)
        if found is None or found[0]() is None or found[1] != _version(tensor):
            return None
        held = found[2]
        return torch.empty(0, dtype=tensor.dtype).set_(held, tensor.storage_offset(), tensor.shape, tensor.stride())

    def forget(self, tensor: Any) -> None:
        """Forget what lies in the storage of a tensor."""
        self._kept.pop(tensor.untyped_storage()._cdata, None)


def _is_small(tensor: Any, most: int = _MOST_BYTES) -> bool:
    return tensor.layout is torch.strided and 0 < tensor.untyped_storage().nbytes() <= most


def _version(tensor: Any) -> int | None:
    return None if tensor.is_inference() else int(tensor._version)


_COMPARED = tuple(f"{name}.{of}" for name in ("eq", "ne", "lt", "le", "gt", "ge") for of in ("Scalar", "Tensor"))
_FLAGS = ("bitwise_not", "logical_not", "bitwise_and.Tensor", "bitwise_or.Tensor", "logical_and", "logical_or")
_COUNTED = ("add.Tensor", "sub.Tensor", "mul.Tensor", "floor_divide", "div.Tensor_mode", "remainder.Scalar", "clamp")
_REDUCED = ("sum", "sum.dim_IntList", "max", "min", "max.dim", "min.dim", "amax", "amin", "any", "any.dim", "all")
_OTHERS = ("minimum", "maximum", "all.dim", "cumsum", "argmax", "sort", "sort.stable")
FOLLOWED = (*_COMPARED, *_FLAGS, *_COUNTED, *_REDUCED, *_OTHERS)
"""Operators by which programs make masks, lengths and indices of a batch."""


def is_countable(one: Any) -> bool:
    """Return whether an argument is no tensor, or one of whole numbers or flags that is small enough to be known."""
    if not isinstance(one, torch.Tensor):
        return True
    return not (one.dtype.is_floating_point or one.dtype.is_complex) and _is_small(one)


def is_known_filled(one: Any) -> bool:
    """Return whether a tensor is known that is filled with one number."""
    if is_countable(one):
        return True
    return one.dtype.is_floating_point and not one.is_inference() and _is_small(one, _MOST_OF_FLOATS)


def takes_two_tensors(operator: Any) -> bool:
    """Return whether the second argument of an operator is a tensor, for which a program may write a number."""
    arguments = operator._schema.arguments
    return len(arguments) > 1 and str(arguments[1].type) == "Tensor"


def without_numbers(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of such an operator as C++ had them: torch hands a number to Python for a number's tensor.

    That of a number has no say in the type of the result, so it gets that type.
    """
    one, other = args[:2]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return args
    if isinstance(one, torch.Tensor):
        other = torch.scalar_tensor(other, dtype=torch.result_type(one, other))
    elif isinstance(other, torch.Tensor):
        one = torch.scalar_tensor(one, dtype=torch.result_type(one, other))
    return one, other, *args[2:]


def original(operator: str) -> Callable[..., Any] | None:
    """Return CUDA's own kernel of an operator, which takes a key set first; `None` where torch does not hand it out."""
    find = getattr(torch.library, "get_kernel", None)
    if find is None:
        return None
    try:
        return find(f"aten::{operator}", "CUDA").call_boxed  # type: ignore[no-any-return]
    except (RuntimeError, AttributeError):
        return None
