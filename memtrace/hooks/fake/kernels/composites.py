"""Operators that torch takes apart below autograd on CUDA, so that each of their steps takes memory.

A dispatch mode sees such an operator as a whole, and meta tensors answer it so. Here its steps run with the mode on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

_aten = torch.ops.aten


def _count_nonzero(one: Any, dim: Any = None) -> Any:
    """Count as CUDA does, where the host goes through the numbers one by one (`TensorAdvancedIndexing.cpp`)."""
    return (one != 0).sum() if dim is None else (one != 0).sum(dim)


def _trilinear(
    one: Any, two: Any, three: Any, expand1: Any, expand2: Any, expand3: Any, summed: Any, unrolled: int = 1
) -> Any:
    """Multiply three tensors and sum over dimensions, for one place of a dimension after the other (`Linear.cpp`).

    It is what a bilinear layer is, forward and backward; the product of the first two is made for each place.
    """
    total = one.dim() + len(expand1)
    sizes = []
    for at in range(total):
        one = one.unsqueeze(at) if at in expand1 else one
        two = two.unsqueeze(at) if at in expand2 else two
        three = three.unsqueeze(at) if at in expand3 else three
        sizes.append(max(one.shape[at], two.shape[at], three.shape[at]))
    out = one.new_zeros([1 if at in summed else size for at, size in enumerate(sizes)])
    early = [at for at in summed if at in expand3 and at != unrolled]
    late = [at for at in summed if at not in expand3 and at != unrolled]
    for place in range(sizes[unrolled]):
        parts = [
            part.narrow(unrolled, 0 if unrolled in grown else place, 1)
            for part, grown in ((one, expand1), (two, expand2), (three, expand3))
        ]
        product = _summed_product(parts[0], parts[1], early)
        product = _summed_product(product, parts[2], late)
        (out if unrolled in summed else out.narrow(unrolled, place, 1)).add_(product)
        del product, parts
    return out.squeeze(tuple(summed))


def _summed_product(left: Any, right: Any, summed: Sequence[int]) -> Any:
    """Multiply and sum by one product of matrices, whose inner dimension all summed ones are (`sumproduct_pair`)."""
    if not summed:
        return left * right
    kept = [at for at in range(left.dim()) if at not in summed]
    both = [at for at in kept if left.shape[at] > 1 and right.shape[at] > 1]
    of_left = [at for at in kept if at not in both and left.shape[at] > 1]
    of_right = [at for at in kept if at not in both and at not in of_left]
    rows = left.permute([*both, *of_left, *summed, *of_right])
    columns = right.permute([*both, *summed, *of_right, *of_left])
    number = [torch.Size([left.shape[at] for at in group]).numel() for group in (both, of_left, list(summed))]
    width = torch.Size([right.shape[at] for at in of_right]).numel()
    out = rows.reshape(number).bmm(columns.reshape(number[0], number[2], width))
    order = [*both, *of_left, *summed, *of_right]
    sizes = [1 if at in summed else max(left.shape[at], right.shape[at]) for at in order]
    return out.view(sizes).permute([order.index(at) for at in range(left.dim())])


def _affine_grid(theta: Any, size: Sequence[int], align_corners: bool) -> Any:
    """Multiply a transform with a grid of places and a one, which backward keeps (`AffineGridGenerator.cpp`)."""
    number, inner = size[0], list(size[2:])
    grid = theta.new_empty([number, *inner, len(inner) + 1])
    for at, steps in enumerate(reversed(inner)):
        line = torch.linspace(-1, 1, steps, device="meta", dtype=theta.dtype)
        line = line if align_corners else line * (steps - 1) / steps
        grid.select(-1, at).copy_(line.view([steps, *[1] * at]))
        del line
    grid.select(-1, len(inner)).fill_(1)
    return grid.view(number, -1, len(inner) + 1).bmm(theta.transpose(1, 2)).view([number, *inner, len(inner)])


APART: dict[Any, Callable[..., Any]] = {
    _aten.count_nonzero.default: _count_nonzero,
    _aten.count_nonzero.dim_IntList: _count_nonzero,
    _aten._trilinear.default: _trilinear,
    _aten.affine_grid_generator.default: _affine_grid,
}
"""By operator, its steps."""
