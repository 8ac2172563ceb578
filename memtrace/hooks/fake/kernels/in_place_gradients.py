"""Gradients whose formulas CUDA takes in place, and C++ out of place wherever a mode of Python looks on.

Each is written out as `FunctionsManual.cpp` and `Loss.cpp` have it for tensors that are plain (torch 2.13). Where the
formula asks whether a number is zero, none is.
"""

from __future__ import annotations

from typing import Any

import torch

_aten = torch.ops.aten
_NONE, _MEAN = 0, 1
"""How a loss is reduced; else it is summed."""


def register(library: Any) -> None:
    """Put the formulas in place. Affects: the dispatcher."""
    library.impl("binary_cross_entropy_with_logits", _cross_entropy, "AutogradMeta")
    library.impl("prod", _whole_product, "AutogradMeta")
    library.impl("prod.dim_int", _product, "AutogradMeta")
    library.impl("cumprod", _running_product, "AutogradMeta")


def _cross_entropy(one: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = _MEAN) -> Any:
    return _CrossEntropy.apply(one, target, weight, pos_weight, reduction)


def _product(one: Any, dim: int, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return _Product.apply(_multiplied_as(one, dtype), dim, keepdim)


def _whole_product(one: Any, *, dtype: Any = None) -> Any:
    return _Product.apply(_multiplied_as(one, dtype), None, True)


def _running_product(one: Any, dim: int, *, dtype: Any = None) -> Any:
    if dtype is None and not one.is_floating_point():
        one = one.to(torch.int64)
    return _RunningProduct.apply(one, dim, dtype)


def _multiplied_as(one: Any, dtype: Any) -> Any:
    """Return a tensor in the type that its numbers are multiplied in: what is asked for, else of integers int64."""
    if dtype is None and not one.is_floating_point():
        dtype = torch.int64
    return one if dtype is None else one.to(dtype)


class _CrossEntropy(torch.autograd.Function):  # type: ignore[misc]  # torch leaves it untyped
    @staticmethod
    def forward(context: Any, one: Any, target: Any, weight: Any, pos_weight: Any, reduction: int) -> Any:
        context.save_for_backward(one, target, weight, pos_weight)
        context.reduction = reduction
        logs = _aten.log_sigmoid_forward(one)[0]
        if pos_weight is not None:
            logs.mul_((pos_weight - 1).mul(target).add_(1))
        loss = (1 - target).mul_(one).sub_(logs)
        if weight is not None:
            loss.mul_(weight)
        return loss if reduction == _NONE else loss.mean() if reduction == _MEAN else loss.sum()

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        one, target, weight, pos_weight = context.saved_tensors
        if pos_weight is not None:
            scaled = pos_weight.mul(target)
            found = scaled.add(1).sub_(target).mul_(one.sigmoid()).sub_(scaled).mul_(gradient)
            del scaled
        else:
            found = one.sigmoid().sub_(target).mul_(gradient)
        if weight is not None:
            found.mul_(weight)
        if context.reduction == _MEAN:
            found.div_(one.numel())
        of_target = None
        if context.needs_input_grad[1]:
            of_target = one.neg() if pos_weight is None else _aten.log_sigmoid_forward(-one)[0].sub_(one)
        return found, of_target, None, None, None


class _Product(torch.autograd.Function):  # type: ignore[misc]  # torch leaves it untyped
    @staticmethod
    def forward(context: Any, one: Any, dim: int | None, keepdim: bool) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            found = _aten.prod.default(one) if dim is None else _aten.prod.dim_int(one, dim, keepdim)
        context.save_for_backward(one, found)
        context.dim, context.squeezed = dim, not keepdim and one.dim() > 1
        return found

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        one, found = context.saved_tensors
        if context.squeezed:
            gradient, found = gradient.unsqueeze(context.dim), found.unsqueeze(context.dim)
        zeros = one == 0
        # How many there are, by row, is kept meanwhile; of all of a tensor it is not.
        zeros = None if context.dim is None else (zeros, zeros.sum(context.dim, True))
        result = gradient * (found / one)
        del zeros
        return result, None, None


class _RunningProduct(torch.autograd.Function):  # type: ignore[misc]  # torch leaves it untyped
    @staticmethod
    def forward(context: Any, one: Any, dim: int, dtype: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            found = _aten.cumprod.default(one, dim, dtype=dtype)
        context.save_for_backward(one, found)
        context.dim = dim
        return found

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        one, found = context.saved_tensors
        gradient = gradient.to(one.dtype)
        products = found * gradient
        zeros = one == 0
        zeros.any()
        # One expression of C++, which holds each of its steps until its end.
        turned = products.flip(context.dim)
        summed = turned.cumsum(context.dim)
        back = summed.flip(context.dim)
        del turned, summed
        result = back.div(one)
        del products, zeros
        return result, None, None
