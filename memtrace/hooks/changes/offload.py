"""A forward whose activations wait for backward in the memory of the host. Parameters stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_LEAST_BYTES = 1 << 14
"""A smaller tensor is not worth its way."""


class Offload:
    """How the forwards of one module are run so that what they keep lies on the host."""

    def __init__(self, torch: Any, *, kept: Callable[[], set[int]]) -> None:
        """`kept` gives the identities of storages that stay, those of parameters."""
        self._torch = torch
        self._kept = kept

    def __call__(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a forward and move what its backward needs to the host."""
        kept = self._kept()
        pinned = self._torch.cuda.is_available()

        def pack(tensor: Any) -> Any:
            if tensor.device.type == "cpu" or _bytes(tensor) < _LEAST_BYTES or _is_kept(tensor, kept):
                return tensor
            there = self._torch.empty(tensor.size(), dtype=tensor.dtype, layout=tensor.layout, pin_memory=pinned)
            there.copy_(tensor)
            return tensor.device, there

        def unpack(packed: Any) -> Any:
            if not isinstance(packed, tuple):
                return packed
            device, there = packed
            return there.to(device, non_blocking=pinned)

        with self._torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return forward(*args, **kwargs)


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


def _is_kept(tensor: Any, kept: set[int]) -> bool:
    if str(tensor.layout) != "torch.strided" or type(tensor).__name__ not in ("Tensor", "Parameter"):
        return True
    return tensor.untyped_storage().data_ptr() in kept
