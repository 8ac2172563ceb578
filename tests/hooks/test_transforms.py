"""What Fourier transforms take beside their results, worked out by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.fake.kernels.transforms import temporary_sizes  # noqa: E402

aten = torch.ops.aten
COMPLEX_BYTES = 8


def made(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def test_scratch_is_as_large_as_what_is_transformed() -> None:
    sizes = temporary_sizes()
    assert sizes[aten._fft_r2c.default]((made(16, 100), [1], 0, True)) == (16 * 100 * COMPLEX_BYTES,)
    one = made(16, 100, dtype=torch.complex64)
    assert sizes[aten._fft_c2c.default]((one, [0, 1], 0, True)) == (16 * 100 * COMPLEX_BYTES,)
    assert sizes[aten._fft_c2c.default]((one, [], 0, True)) == ()


def test_what_becomes_real_is_copied_first() -> None:
    half = made(16, 51, dtype=torch.complex64)
    expected = (16 * 51 * COMPLEX_BYTES, 16 * 100 * COMPLEX_BYTES)
    assert temporary_sizes()[aten._fft_c2r.default]((half, [1], 0, 100)) == expected


def test_one_number_at_every_place_is_copied() -> None:
    gradient = made().expand(16, 100)
    assert temporary_sizes()[aten._fft_r2c.default]((gradient, [1], 0, True))[0] == 16 * 100 * 4
    columns = made(100, 16).t()
    assert len(temporary_sizes()[aten._fft_r2c.default]((columns, [1], 0, True))) == 1
    between = made(16, 100, 8).transpose(1, 2)
    assert temporary_sizes()[aten._fft_r2c.default]((between, [2], 0, True))[0] == 16 * 100 * 8 * 4
