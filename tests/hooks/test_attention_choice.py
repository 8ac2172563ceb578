"""The choice of an attention kernel, condition by condition as `sdp_utils.cpp` states them, on tensors without data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from memtrace.hooks.fake.kernels.attention_choice import Attended, Backend, choose_backend
from memtrace.hooks.fake.kernels.attention_memory import efficient_backward_sizes, flash_backward_sizes

V100, T4, A100, A10, H100, B200, RTX5090 = (7, 0), (7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)
HALF = torch.bfloat16


def made(rows: int = 128, width: int = 64, heads: int = 4, dtype: Any = HALF, grad: bool = False) -> Any:
    return torch.empty(2, heads, rows, width, dtype=dtype, device="meta", requires_grad=grad)


def chosen(query: Any, key: Any = None, value: Any = None, *, on: tuple[int, int] = A100, **options: Any) -> Backend:
    key = query if key is None else key
    defaults: dict[str, Any] = {"has_mask": False, "dropout": 0.0, "is_causal": False, "enable_gqa": False}
    call = Attended(query=query, key=key, value=key if value is None else value, **(defaults | options))
    return choose_backend(call, on)


@pytest.mark.parametrize(
    ("on", "dtype", "expected"),
    [
        (V100, torch.float16, Backend.EFFICIENT),
        (T4, HALF, Backend.MATH),
        (A100, HALF, Backend.FLASH),
        (A100, torch.float32, Backend.EFFICIENT),
        (A100, torch.float64, Backend.MATH),
        (A10, torch.float16, Backend.FLASH),
        (H100, HALF, Backend.CUDNN),
        (H100, torch.float32, Backend.EFFICIENT),
        (B200, HALF, Backend.CUDNN),
        (RTX5090, HALF, Backend.FLASH),
        ((13, 0), HALF, Backend.MATH),
    ],
)
def test_the_gpu_and_the_type_decide(on: tuple[int, int], dtype: Any, expected: Backend) -> None:
    assert chosen(made(dtype=dtype), on=on) is expected


def test_a_mask_rules_flash_out() -> None:
    assert chosen(made(), has_mask=True) is Backend.EFFICIENT
    assert chosen(made(), has_mask=True, on=H100) is Backend.CUDNN


def test_a_causal_pass_over_more_keys_than_queries_is_not_for_flash() -> None:
    query, key = made(rows=64), made(rows=128)
    assert chosen(query, key, is_causal=True) is Backend.EFFICIENT
    assert chosen(query, key) is Backend.FLASH


@pytest.mark.parametrize(
    ("width", "on", "expected"),
    [
        (256, A100, Backend.FLASH),
        (264, A100, Backend.EFFICIENT),
        # Rows of 16 bits divide by 8 for the memory-efficient kernel; flash has them padded.
        (60, A100, Backend.FLASH),
        (128, H100, Backend.CUDNN),
        (256, H100, Backend.CUDNN),
        (264, H100, Backend.EFFICIENT),
        (60, H100, Backend.FLASH),
    ],
)
def test_the_width_of_a_row(width: int, on: tuple[int, int], expected: Backend) -> None:
    assert chosen(made(width=width), on=on) is expected


@pytest.mark.parametrize(("on", "width", "expected"), [(A100, 6, Backend.MATH), (V100, 6, Backend.EFFICIENT)])
def test_rows_of_float32_divide_by_four_from_ampere_on(on: tuple[int, int], width: int, expected: Backend) -> None:
    assert chosen(made(width=width, dtype=torch.float32), on=on) is expected


@pytest.mark.parametrize(
    ("width", "dropout", "grad", "expected"),
    [
        (192, 0.0, True, Backend.FLASH),
        (224, 0.0, True, Backend.EFFICIENT),
        (224, 0.0, False, Backend.FLASH),
        (256, 0.0, True, Backend.FLASH),
        (256, 0.5, True, Backend.EFFICIENT),
    ],
)
def test_little_shared_memory_cannot_differentiate_wide_rows(
    width: int, dropout: float, grad: bool, expected: Backend
) -> None:
    assert chosen(made(width=width, grad=grad), dropout=dropout, on=A10) is expected


def test_shared_heads_need_to_be_asked_for() -> None:
    query, key = made(heads=8), made(heads=2)
    assert chosen(query, key) is Backend.MATH
    assert chosen(query, key, enable_gqa=True) is Backend.FLASH
    assert chosen(query, made(heads=3), enable_gqa=True) is Backend.MATH
    # cuDNN alone lets keys and values differ.
    assert chosen(query, made(heads=2), made(heads=4), enable_gqa=True) is Backend.MATH
    assert chosen(query, made(heads=2), made(heads=4), enable_gqa=True, on=H100) is Backend.CUDNN


def test_rows_that_start_between_alignments_are_not_for_the_efficient_kernel() -> None:
    whole = torch.empty(2 * 4 * 128 * 64 + 2, device="meta")
    shifted = whole[2:].view(2, 4, 128, 64)
    assert chosen(shifted) is Backend.MATH
    assert chosen(shifted, on=V100) is Backend.EFFICIENT


def test_cudnn_takes_dropout_in_sixteenths_only() -> None:
    assert chosen(made(), dropout=0.125, on=H100) is Backend.CUDNN
    assert chosen(made(), dropout=0.1, on=H100) is Backend.FLASH


def test_cudnn_refuses_one_key() -> None:
    assert chosen(made(), made(rows=1), on=H100) is Backend.FLASH


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_cudnn_is_not_deterministic() -> None:
    assert chosen(made(), on=H100) is Backend.FLASH


def test_the_programs_own_choice_is_kept() -> None:
    with sdpa_kernel(SDPBackend.MATH):
        assert chosen(made()) is Backend.MATH
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        assert chosen(made(), on=H100) is Backend.EFFICIENT
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
        assert chosen(made()) is Backend.EFFICIENT
    assert chosen(made()) is Backend.FLASH


def test_flash_adds_up_in_float32_and_expands_shared_heads() -> None:
    batch, heads, rows, width = 2, 8, 200, 72
    query, key = made(rows, width, heads), made(rows, width, 2)
    # 200 rows are rounded to 256, a width of 72 to 96; a row sum each.
    sums = batch * heads * 256 * 4, batch * heads * 256 * 96 * 4
    expanded = batch * heads * rows * width * 2
    assert flash_backward_sizes(query, query) == sums
    assert flash_backward_sizes(query, key) == (*sums, expanded, expanded)


def test_the_efficient_kernel_adds_up_queries_in_tiles() -> None:
    batch, heads, rows, width = 2, 4, 100, 64
    one = made(rows, width)
    # Two rows of tiles of 64 x 64, each with a header of 16 bytes, and a row sum.
    tiles = 2 * 1 * (64 * 64 * 4 + 16)
    assert efficient_backward_sizes(one, one, one, A100) == (batch * heads * rows * 4, batch * heads * tiles)


def test_wide_rows_that_outgrow_registers_add_up_keys_and_values_too() -> None:
    one = made(128, 128)
    on_a100, on_a10 = (sum(efficient_backward_sizes(one, one, one, on)) for on in (A100, A10))
    # On an A10 tiles are 64 x 64: two by two of them, and for two splits of the keys a block of keys and one of values.
    assert on_a10 == 2 * 4 * (2 * 2 * (64 * 64 * 4 + 16) + 2 * 2 * 64 * 128 * 4 + 128 * 4)
    assert on_a100 == 2 * 4 * (128 * 128 * 4 + 16 + 128 * 4)
