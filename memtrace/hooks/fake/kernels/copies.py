"""Copies that kernels make of arguments which do not lie in memory as they need them, and give back.

The plainest case is the gradient of a sum: one number, seen at every place with a stride of zero. Elementwise kernels
read it so; a matrix product, a norm or a convolution has it copied whole first. In: an operator and its arguments.
Out: bytes of the copies that are there at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch._prims_common import suggest_memory_format

_aten = torch.ops.aten
_PRODUCTS = {
    "mm.default": (0, 1),
    "addmm.default": (1, 2),
    "bmm.default": (0, 1),
    "baddbmm.default": (1, 2),
}
"""Operators of cuBLAS: their matrices have rows or columns of neighbours, and nothing lies in two places."""
_CONVOLUTIONS = {
    _aten.convolution.default: ((0,), (0, 1)),
    _aten.convolution_backward.default: ((0, 1), (1, 2)),
}
"""Operators of cuDNN: which arguments are copied, and which say whether the channels come last (`ConvUtils.h`)."""
_CHANNELS_LAST = (torch.channels_last, torch.channels_last_3d)
_ATTENTION = {
    "_scaled_dot_product_efficient_attention_backward.default": (0,),
    "_scaled_dot_product_flash_attention_backward.default": (0, 4),
}
"""Kernels that take the gradient, and the flash kernel the output too, row after row with all heads of each."""
_SPREAD = {"_scaled_dot_product_cudnn_attention_backward.default": (0,)}
_PUTS = {_aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
_SORT_BYTES = 48
"""Of an index: itself, sorted, its place, sorted, and both again while they are."""
_CUDNN_TYPES = (torch.float32, torch.float16)
"""Of which cuDNN normalizes batches; torch's own kernel, for the others, takes them as they lie."""
_UPSAMPLED = (
    "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d upsample_nearest1d "
    "upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"
)
_CONTIGUOUS = {
    "native_layer_norm_backward.default": (0, 1),
    "native_group_norm_backward.default": (0, 1),
    "_fused_rms_norm_backward.default": (0, 1),
    "_log_softmax_backward_data.default": (0, 1),
    "max_pool2d_with_indices_backward.default": (0,),
    "avg_pool2d_backward.default": (0,),
    "_adaptive_avg_pool2d_backward.default": (0,),
    "max_pool3d_with_indices_backward.default": (0,),
    "avg_pool3d_backward.default": (0,),
    "adaptive_max_pool2d_backward.default": (0,),
    "adaptive_max_pool3d_backward.default": (0,),
    "fractional_max_pool2d_backward.default": (0,),
    "fractional_max_pool3d_backward.default": (0,),
    **{f"{name}_backward.default": (0,) for name in _UPSAMPLED.split()},
    "reflection_pad1d_backward.default": (0,),
    "reflection_pad2d_backward.default": (0,),
    "col2im.default": (0,),
    "im2col.default": (0,),
    "embedding_dense_backward.default": (0,),
    "_embedding_bag_backward.default": (0,),
    "_embedding_bag_dense_backward.default": (0,),
}
"""Operators of torch's own kernels that ask for `contiguous()`."""


def copied_bytes(func: Any, args: Sequence[Any]) -> tuple[int, ...]:
    """Return the bytes of each copy that an operator makes of its arguments.

    >>> gradient = torch.empty((), device="meta").expand(512, 4096)
    >>> weight = torch.empty(4096, 1024, device="meta")
    >>> copied_bytes(_aten.mm.default, (gradient, weight)) == (512 * 4096 * 4,)
    True
    >>> copied_bytes(_aten.mm.default, (weight.t(), weight)), copied_bytes(_aten.mul.Tensor, (gradient, gradient))
    ((), ())
    """
    if func is _aten.native_batch_norm_backward.default and _is_cudnn_norm(args):
        return _copies(args[:2], _is_dense)
    if func in _CONVOLUTIONS:
        places, deciding = _CONVOLUTIONS[func]
        return _copies([args[at] for at in places], _laid_as([args[at] for at in deciding]))
    if func in _PUTS and len(args) > 3 and args[3]:
        return _added_up(args[0], args[1], args[2])
    found = _RULES.get(func)
    if found is None:
        return ()
    places, lies_well = found
    return _copies([args[place] for place in places if place < len(args)], lies_well)


def _is_cudnn_norm(args: Sequence[Any]) -> bool:
    """Return whether cuDNN normalized a batch: in training, of places, weights in 32 bits (`Normalization.cpp`)."""
    one, weight, is_training = args[1], args[2], args[7]
    is_weighted = weight is not None and weight.dtype is torch.float32
    return bool(is_weighted and is_training and one.dim() > 2 and one.dtype in _CUDNN_TYPES)


def _copies(tensors: Sequence[Any], lies_well: Callable[[Any], bool]) -> tuple[int, ...]:
    return tuple(one.numel() * one.element_size() for one in _strided(tensors) if not lies_well(one))


def _added_up(one: Any, indices: Sequence[Any], values: Any) -> tuple[int, ...]:
    """Values that are added up at indices are copied, and the indices sorted with their places (`Indexing.cu`)."""
    given = [index for index in indices if index is not None]
    number = max((index.numel() for index in given if index.dtype is not torch.bool), default=0)
    if not number and len(given) == 1:
        # Flags are made into the places where they are set, of which there are as many as values.
        number = values.numel() * given[0].numel() // max(one.numel(), 1)
    return (*_copies([values], _is_contiguous), *([_SORT_BYTES * number] if number else []))


def _strided(tensors: Sequence[Any]) -> Iterator[Any]:
    return (one for one in tensors if isinstance(one, torch.Tensor) and one.layout is torch.strided and one.numel() > 1)


def _is_matrix(one: Any) -> bool:
    """Return whether cuBLAS takes a matrix, or each of a batch, as it lies (`prepare_matrix_for_cublas`)."""
    rows, columns = one.shape[-2:]
    down, across = one.stride()[-2:]
    by_rows = (across == 1 or columns == 1) and down >= max(1, columns)
    by_columns = (down == 1 or rows == 1) and across >= max(1, rows)
    return bool(by_rows or by_columns)


def _is_dense(one: Any) -> bool:
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(one.dim())
    return _is_contiguous(one) or (last is not None and bool(one.is_contiguous(memory_format=last)))


def _laid_as(deciding: Sequence[Any]) -> Callable[[Any], bool]:
    """Return whether a tensor lies as a convolution is computed: channels last where input or weights lie so."""
    found = {suggest_memory_format(one) for one in deciding if one.dtype is not torch.float64}
    for layout in _CHANNELS_LAST:
        if layout in found:
            return lambda one: bool(one.is_contiguous(memory_format=layout))
    return _is_contiguous


def _is_by_rows(one: Any) -> bool:
    return bool(one.transpose(1, 2).is_contiguous())


def _is_spread(one: Any) -> bool:
    return 0 not in one.stride() and one.stride(-1) == 1


def _is_contiguous(one: Any) -> bool:
    return bool(one.is_contiguous())


def _rules() -> dict[Any, tuple[tuple[int, ...], Callable[[Any], bool]]]:
    kinds = (
        (_PRODUCTS, _is_matrix),
        (_CONTIGUOUS, _is_contiguous),
        (_ATTENTION, _is_by_rows),
        (_SPREAD, _is_spread),
    )
    return {
        getattr(getattr(_aten, packet), overload): (places, lies_well)
        for names, lies_well in kinds
        for name, places in names.items()
        for packet, overload in (name.split("."),)
        if hasattr(_aten, packet)
    }


_RULES = _rules()
