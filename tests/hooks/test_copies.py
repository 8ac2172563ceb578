"""Copies that kernels make of arguments: of what lies badly, once each, and of nothing that lies well."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from memtrace.hooks.fake.kernels.copies import copied_bytes

aten = torch.ops.aten


def made(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def everywhere(*shape: int) -> torch.Tensor:
    """One number, seen at every place: the gradient of a sum."""
    return made().expand(shape)


def test_matrices_lie_by_rows_or_by_columns() -> None:
    one = made(64, 32)
    for fine in (one, one.t(), made(64, 100)[:, :32], made(1, 32).expand(1, 32), made(100, 64).t()[:, :32]):
        assert copied_bytes(aten.mm.default, (fine, fine)) == ()
    for bad in (everywhere(64, 32), made(64, 64)[:, ::2], made(1, 32).expand(64, 32)):
        assert copied_bytes(aten.mm.default, (one.t(), bad)) == (64 * 32 * 4,)
    assert copied_bytes(aten.addmm.default, (everywhere(32), one, everywhere(32, 32))) == (32 * 32 * 4,)
    assert copied_bytes(aten.bmm.default, (everywhere(4, 64, 32), everywhere(4, 32, 64))) == (4 * 64 * 32 * 4,) * 2


def test_channels_may_come_last_where_cudnn_works() -> None:
    last = made(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    weight = made(4, 8, 3, 3)
    assert copied_bytes(aten.convolution.default, (last, weight)) == ()
    assert copied_bytes(aten.convolution_backward.default, (everywhere(2, 4, 4, 4), last, weight)) == (2 * 4 * 16 * 4,)
    assert copied_bytes(aten.max_pool2d_with_indices_backward.default, (last,)) == (2 * 8 * 36 * 4,)


@pytest.mark.parametrize(("dtype", "is_copied"), [(torch.float32, True), (torch.bfloat16, False)])
def test_batches_are_normalized_by_cudnn_in_some_types(dtype: torch.dtype, is_copied: bool) -> None:
    gradient = made(dtype=dtype).expand(2, 8, 6, 6)
    is_training = True
    args = gradient, made(2, 8, 6, 6, dtype=dtype), made(8, dtype=dtype), None, None, made(8), made(8), is_training
    assert copied_bytes(aten.native_batch_norm_backward.default, args) == ((2 * 8 * 36 * 4,) if is_copied else ())


def test_indices_are_sorted_where_values_are_added_up() -> None:
    places, values = made(100, dtype=torch.int64), made(100, 16)
    table = made(50, 16)
    assert copied_bytes(aten.index_put.default, (table, [places], values, True)) == (100 * 48,)
    assert copied_bytes(aten.index_put.default, (table, [None, places], everywhere(50, 100), True)) == (20_000, 4800)
    assert copied_bytes(aten.index_put.default, (table, [places], values, False)) == ()
    assert copied_bytes(aten.index_put.default, (table, [places], values)) == ()


def test_single_numbers_and_other_operators_are_left() -> None:
    assert copied_bytes(aten.mm.default, (made(1, 1), made(1, 1))) == ()
    assert copied_bytes(aten.add.Tensor, (everywhere(64, 32), everywhere(64, 32))) == ()


def test_flags_are_sorted_as_the_places_that_they_are() -> None:
    table, flags = made(100, 16), made(100, 16, dtype=torch.bool)
    assert copied_bytes(aten.index_put.default, (table, [flags], made(300), True)) == (300 * 48,)
    rows = made(100, dtype=torch.bool)
    assert copied_bytes(aten.index_put.default, (table, [rows], made(30, 16), True)) == (30 * 48,)


def test_a_convolution_copies_what_lies_unlike_its_input() -> None:
    one, weight = made(2, 8, 6, 6), made(4, 8, 3, 3)
    last = made(2, 4, 4, 4).contiguous(memory_format=torch.channels_last)
    assert copied_bytes(aten.convolution_backward.default, (last, one, weight)) == (2 * 4 * 16 * 4,)
    of_last = one.contiguous(memory_format=torch.channels_last)
    assert copied_bytes(aten.convolution_backward.default, (last, of_last, weight)) == ()
