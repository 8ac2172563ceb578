"""What the backward kernels of attention take beside the gradients, and give back.

- The flash kernel adds up the gradient of the queries in float32, rows rounded up to 128 and widths to 32 (to 64 above
  128), keeps a row sum, and makes key and value gradients for every query head where heads share them (`mha_bwd` of
  `flash_attn/flash_api.cpp`).
- The memory-efficient kernel adds up the gradient of the queries in float32, in tiles, and keeps a row sum; above the
  width that fits its registers, keys and values are added up as well, a block of each split of the keys. The row sum of
  32 bits is computed by torch's own operators before (`attention_backward.cu`, `mem_eff_attention/kernel_backward.h`).
  Which tiles are taken on which GPU, `tests/driverless` shows.
- cuDNN's plan is not public: it is taken to need what the flash kernel needs.
"""

from __future__ import annotations

from typing import Any

_FLOAT = 4
_TILE_HEADER_BYTES = 16
_LARGE_SHARED_MEMORY = ((8, 0), (8, 7), (9, 0), (10, 0), (10, 3))
"""Compute capabilities of which a kernel may take more than 100 KiB of shared memory."""


def flash_backward_sizes(query: Any, key: Any) -> tuple[int, ...]:
    """Return the bytes of what the flash kernel holds at once, of tensors (batch, heads, rows, width).

    >>> import torch
    >>> half = torch.empty(2, 12, 1000, 64, dtype=torch.bfloat16, device="meta")
    >>> flash_backward_sizes(half, half) == (4 * 2 * 12 * 1024, 4 * 2 * 12 * 1024 * 64)
    True
    """
    batch, heads, rows, width = query.shape
    rounded_width = _rounded(width, 32 if width <= 128 else 64)
    sums = _FLOAT * batch * heads * _rounded(rows, 128)
    expanded = batch * key.shape[2] * heads * width * query.element_size()
    return (sums, sums * rounded_width, *((expanded, expanded) if key.shape[1] != heads else ()))


def efficient_backward_sizes(query: Any, key: Any, value: Any, capability: tuple[int, int]) -> tuple[int, ...]:
    """Return the bytes of what the memory-efficient kernel holds at once, of tensors (batch, heads, rows, width).

    In float32 the sums over rows are of a product as large as the output, which is gone when the tiles are made:

    >>> import torch
    >>> single = torch.empty(2, 12, 1000, 64, device="meta")
    >>> efficient_backward_sizes(single, single, single, (8, 0)) == (96_000, 2 * 12 * 16 * (64 * 64 * 4 + 16))
    True
    """
    batch, heads, rows, width = query.shape
    widths, is_float = (width, value.shape[-1]), query.element_size() == _FLOAT
    tile_rows, tile_columns, in_registers = _tile(max(widths), capability, is_float=is_float)
    tile = tile_rows * tile_columns * _FLOAT + _TILE_HEADER_BYTES
    elsewhere = -(-rows // tile_rows) * -(-width // tile_columns) * tile
    if not in_registers:
        splits = max(1, min(-(-key.shape[2] // tile_columns), 200 // (batch * heads)))
        elsewhere += splits * tile_columns * sum(_rounded(one, tile_rows) for one in widths) * _FLOAT
    product = _FLOAT * rows * widths[1] if is_float else 0
    return _FLOAT * batch * heads * rows, batch * heads * max(elsewhere, product)


def _tile(width: int, capability: tuple[int, int], *, is_float: bool) -> tuple[int, int, bool]:
    """Return rows and columns of a tile, and whether gradients of keys and values fit registers at this width."""
    is_large = capability in _LARGE_SHARED_MEMORY
    if width <= 64:
        return 64, 64, True
    if is_float:
        return (128, 64, True) if is_large else (64, 64, True)
    if width > 128:
        return 128, 64, False
    if is_large:
        return 128, 128, True
    if capability < (8, 0) or (width <= 96 and capability < (12, 0)):
        return 128, 64, True
    return 64, 64, False


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step
