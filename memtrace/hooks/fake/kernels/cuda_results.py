"""Operators that CUDA's own code answers otherwise than the kernels for shapes do.

Each was seen in the requests of torch 2.13's CUDA build, run without a driver: `tests/driverless` can show them again.

- A loss that is averaged is first made whole, and its storage keeps that size: the number is written into its front
  (`Loss.cu`, `PointwiseOps`: `resize_` does not shrink a storage). So are sums of columns (`Col2Im.cu`).
- `log_sigmoid` keeps no buffer on CUDA, and the gradients of `mish` and of an RMS norm are kernels of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.fake.kernels import in_place_gradients, synchronized_norm

_aten = torch.ops.aten
_NO_REDUCTION = 0
_ROW_ALIGNMENT = 16
_SHORT_ROW, _LONG_ROW, _MANY_ROWS = 4096, 1_000_000, 128
_PLACE_BYTES = 8

Answer = Callable[..., Any]


def answers() -> dict[Any, Answer]:
    """Return what to call in the place of operators of fake tensors on the GPU."""
    whole = {
        _aten.mse_loss.default: 2,
        _aten.smooth_l1_loss.default: 2,
        _aten.binary_cross_entropy.default: 3,
        _aten.soft_margin_loss.default: 2,
    }
    return {
        **{func: _whole_loss(func, at) for func, at in whole.items()},
        **synchronized_norm.answers(),
        _aten.log_sigmoid_forward.default: lambda one: (torch.empty_like(one), one.new_empty(0)),
        _aten.col2im.default: _columns_summed,
        **({_aten._grouped_mm.default: _grouped_product} if hasattr(_aten, "_grouped_mm") else {}),
        **{getattr(_aten._ctc_loss, name): _ctc_loss for name in ("default", "Tensor")},
        **{getattr(_aten._ctc_loss_backward, name): _ctc_loss_backward for name in ("default", "Tensor")},
        _aten.multilabel_margin_loss_forward.default: _margins,
        _aten._padded_dense_to_jagged_forward.default: _without_padding,
        _aten.multilabel_margin_loss_backward.default: lambda _gradient, one, *_args: torch.empty_like(one),
        _aten.multi_margin_loss_backward.default: lambda _gradient, one, *_args, **_kwargs: torch.empty_like(one),
    }


def _margins(one: Any, target: Any, reduction: int) -> Any:
    """Return a loss, and which classes are targets in the type of the input (`MultiLabelMarginCriterion.cu`)."""
    shape = one.shape[:-1] if reduction == _NO_REDUCTION else ()
    return one.new_empty(shape), one.new_empty(target.shape)


def _without_padding(dense: Any, offsets: Any, total: int | None = None) -> Any:
    """Return the rows of a nested tensor, without what padded them: as many as whoever asks says."""
    if total is None:
        return _aten._padded_dense_to_jagged_forward.default(dense, offsets, total)
    return dense.new_empty(total, *dense.shape[len(offsets) + 1 :])


def _ctc_loss(probabilities: Any, targets: Any, _times: Any, lengths: Any, *_args: Any) -> Any:
    """Return a loss a sample, and the forward variables of every time and place between labels (`LossCTC.cu`)."""
    times, samples = probabilities.shape[:2] if probabilities.dim() == 3 else (probabilities.shape[0], 1)
    is_told = isinstance(lengths, (list, tuple))
    longest = max(lengths, default=0) if is_told else targets.shape[-1]
    variables = probabilities.new_empty((samples, times, 2 * int(longest) + 1))
    return probabilities.new_empty((samples,)), variables


def _ctc_loss_backward(_gradient: Any, probabilities: Any, *_args: Any) -> Any:
    return torch.empty_like(probabilities)


def register() -> None:
    """Give kernels for shapes to what would be taken apart without one. Affects: the dispatcher, once a process."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("mish_backward", lambda _gradient, one: torch.empty_like(one), "AutogradMeta")
    library.impl("dropout", _dropout, "AutogradMeta")
    in_place_gradients.register(library)
    _kept.append(library)


def _dropout(one: Any, p: float, train: bool) -> Any:
    """Drop out as CUDA does, with a mask of one byte an element, also where C++ asks: in written-out attention."""
    if not train or p == 0:
        return one
    return _aten.native_dropout(one, p, True)[0] if p < 1 else one.mul(torch.zeros_like(one))


_kept: list[Any] = []
"""What is registered lasts as long as this."""


class _RmsNorm(torch.autograd.Function):  # type: ignore[misc]  # torch leaves it untyped
    """The kernel that CUDA has for an RMS norm, which keeps one number in float32 for each row."""

    @staticmethod
    def forward(context: Any, one: Any, rows: int, weight: Any) -> Any:
        """Return the norm."""
        out, inverse = torch.empty_like(one), one.new_empty(rows, dtype=torch.float32)
        context.save_for_backward(one, inverse, weight)
        return out

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        """Return the gradients of input and weight."""
        one, _, weight = context.saved_tensors
        # The kernel has a gradient copied that is one number seen at every place.
        gradient = gradient.contiguous()
        of_input = torch.empty_like(one, memory_format=torch.contiguous_format)
        return of_input, None, None if weight is None else torch.empty_like(weight)


def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """Return the norm as CUDA does in one kernel, where others take steps; mixed types go in steps there as well."""
    plain = (torch.float32, torch.float16, torch.bfloat16)
    if input.is_meta and torch.is_autocast_enabled("cuda"):
        input, weight = input.float(), weight if weight is None else weight.float()
    if not input.is_meta or input.dtype not in plain or (weight is not None and weight.dtype is not input.dtype):
        return torch.rms_norm(input, normalized_shape, weight, eps)
    return _RmsNorm.apply(input, input.numel() // max(math.prod(normalized_shape), 1), weight)


def _whole_loss(func: Any, place: int) -> Answer:
    def answer(*args: Any, **kwargs: Any) -> Any:
        reduction = args[place] if len(args) > place else kwargs.get("reduction", 1)
        out = func(*args, **kwargs)
        if reduction == _NO_REDUCTION:
            return out
        shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
        return _in_storage_of(max(math.prod(shape), 1), out)

    return answer


def _grouped_product(one: Any, other: Any, offsets: Any = None, _bias: Any = None, dtype: Any = None) -> Any:
    """Return products of groups of rows, as experts make them.

    CUDA takes any type, the kernel for shapes bfloat16 only. Rows begin at multiples of 16 bytes (`GroupedMMUtils.h`).
    """
    rows, width = one.shape[-2], other.shape[-1]
    dtype = dtype or one.dtype
    step = max(_ROW_ALIGNMENT // dtype.itemsize, 1)
    stride = -(-width // step) * step
    if one.dim() == other.dim():
        groups = one.shape[0] if one.dim() > 2 else offsets.numel()
        return torch.empty_strided((groups, rows, width), (rows * stride, stride, 1), dtype=dtype, device="meta")
    return torch.empty_strided((rows, width), (stride, 1), dtype=dtype, device="meta")


def _columns_summed(one: Any, *args: Any, **kwargs: Any) -> Any:
    return _in_storage_of(one.numel(), _aten.col2im.default(one, *args, **kwargs))


def _in_storage_of(elements: int, out: Any) -> Any:
    """Return a result at the front of a storage of so many elements, if that is more than it has."""
    if elements <= out.numel():
        return out
    return out.new_empty(elements).as_strided(out.shape, out.stride())


def temporary_bytes() -> dict[Any, Callable[[Any], int]]:
    """Return, by operator, the bytes of what it makes beside its result and gives back, from its arguments.

    >>> one = torch.empty(8, 100, device="meta")
    >>> temporary_bytes()[_aten._softmax_backward_data.default]((one, one, -1, torch.float32)) == 8 * 100 * 4
    True
    """
    return {
        # A product of gradient and output, which log_softmax does without (`SoftMax.cu`).
        _aten._softmax_backward_data.default: lambda args: _bytes(args[0]),
        # Which scores are minus infinity, a byte each, for rows in which all are (`SoftMax.cpp`).
        _aten._safe_softmax.default: lambda args: int(args[0].numel()),
        # Exponentials of the whole input, beside the largest and the sum of each row (`ReduceOps.cpp`).
        _aten.logsumexp.default: lambda args: _bytes(args[0]),
        _aten.mse_loss.default: _whole_bytes,
        _aten.smooth_l1_loss.default: _whole_bytes,
        _aten.huber_loss.default: _whole_bytes,
        # A difference for each pair, before it is summed (`DistanceKernel.cu`).
        _aten._cdist_backward.default: lambda args: _bytes(args[4]) * int(args[1].shape[-1]),
        _aten._pdist_backward.default: lambda args: _bytes(args[1]) * max(len(args[1]) - 1, 0),
        **{getattr(_aten.sort, name): _sort_bytes for name in ("default", "stable")},
        # A result as large as the input, before it is given its own size (`Im2Col.cu`).
        _aten.im2col.default: lambda args: _bytes(args[0]),
        _aten.soft_margin_loss_backward.default: lambda args: 2 * _bytes(args[1]),
        # Places along the dimension (`UnfoldBackwardKernel.cu`), and how many flags were set before each one's.
        _aten.unfold_backward.default: lambda args: _PLACE_BYTES * int(args[1][args[2]]),
        **{
            func: lambda args: _PLACE_BYTES * int(args[0].numel())
            for func in (_aten.masked_scatter.default, _aten.masked_scatter_.default)
        },
        _aten.roll.default: _rolled_bytes,
        # Rows without what padded them, once more (`NestedTensorTransformerFunctions.cu`).
        _aten._padded_dense_to_jagged_forward.default: _unpadded_bytes,
        _aten.multinomial.default: _drawn_bytes,
        _aten.randperm.default: lambda args: _permutation_bytes(int(args[0])),
        # Backward variables, as many as the forward ones (`LossCTC.cu`).
        **{getattr(_aten._ctc_loss_backward, name): lambda args: _bytes(args[6]) for name in ("default", "Tensor")},
    }


def _sort_bytes(args: Any) -> int:
    """Return what sorting long rows takes beside the result: values and places once more, by rows (`Sort.cpp`).

    Rows of up to 4,096 are sorted in one kernel. The library's own rounding, a few percent, is not followed.
    """
    one = args[0]
    if not one.dim() or (length := one.shape[args[1] if len(args) > 1 and type(args[1]) is int else -1]) <= _SHORT_ROW:
        return 0
    number, key = one.numel() // length, max(one.element_size(), 4)
    if number == 1 or length >= _LONG_ROW:
        return int(length * (_PLACE_BYTES + key + _PLACE_BYTES))
    if number < _MANY_ROWS:
        return int(one.numel() * (2 * _PLACE_BYTES + one.element_size() + key + _PLACE_BYTES))
    return int(one.numel() * (_PLACE_BYTES + one.element_size() + _PLACE_BYTES))


def _rolled_bytes(args: Any) -> int:
    """Return what is rolled along all dimensions but the last of them, or a copy in order (`TensorTransformations.cu`)."""
    one, dims = args[0], args[2] if len(args) > 2 else ()
    if len(dims) > 1:
        return _bytes(one) * (len(dims) - 1)
    return 0 if one.is_contiguous() else _bytes(one)


def _unpadded_bytes(args: Any) -> int:
    dense, offsets, total = (*args, None)[:3]
    return 0 if total is None else int(total * math.prod(dense.shape[len(offsets) + 1 :]) * dense.element_size())


def _drawn_bytes(args: Any) -> int:
    """Return what draws take: a random number a weight, or three forms of the weights (`MultinomialKernel.cu`)."""
    is_replaced = len(args) > 2 and args[2]
    return _bytes(args[0]) * (3 if is_replaced and args[1] > 1 else 1)


def _permutation_bytes(number: int) -> int:
    """Return what a random order of so many takes: places and keys, both sorted (`Randperm.cu`).

    Keys are as long as makes it unlikely that two are the same: 4 bytes up to some 30,000.

    >>> _permutation_bytes(1000) == 1000 * (8 + 2 * 4)
    True
    """
    if not number:
        return 0
    likely = number + (6 * number**2 + 1) / (-12 * math.log(0.9))
    key = 4 if math.ceil(math.log2(likely)) <= 32 else 8
    sorting = key + _PLACE_BYTES if number > _SHORT_ROW else 0
    return number * (_PLACE_BYTES + 2 * key + sorting)


def _bytes(one: Any) -> int:
    return int(one.numel() * one.element_size())


def _whole_bytes(args: Any) -> int:
    reduction = args[2] if len(args) > 2 else 1
    return 0 if reduction == _NO_REDUCTION else _bytes(args[0])
