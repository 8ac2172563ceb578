"""What the backward kernels of attention take beside the gradients, and give back. None of it was measured on a GPU.

- The flash kernel adds up the gradient of the queries in float32, rows rounded up to 128 and widths to 32 (256 above
  192), keeps a row sum, and makes key and value gradients for every query head where heads share them (`mha_bwd` of
  `flash_attn/flash_api.cpp`).
- The memory-efficient kernel of 16 bits adds up the gradient of the queries in float32, in tiles, and keeps a row sum;
  above the width that fits its registers, keys and values are added up as well, a block of each split of the keys. The
  kernel of 32 bits adds up in place, and its row sum is computed by torch's own operators before
  (`attention_backward.cu`, `mem_eff_attention/kernel_backward.h`).
- cuDNN's plan is not public: it is taken to need what the flash kernel needs.
"""

from __future__ import annotations

from typing import Any

_FLOAT = 4
_TILE_HEADER_BYTES = 16
_LARGE_SHARED_MEMORY = ((8, 0), (8, 7), (9, 0), (10, 0), (10, 3))
"""Compute capabilities of which a kernel may take more than 100 KiB of shared memory."""


def flash_backward_bytes(query: Any, key: Any) -> int:
    """Return the bytes of the temporaries of the flash kernel, of tensors (batch, heads, rows, width).

    >>> import torch
    >>> half = torch.empty(2, 12, 1000, 64, dtype=torch.bfloat16, device="meta")
    >>> flash_backward_bytes(half, half) == 4 * 2 * 12 * 1024 * (64 + 1)
    True
    """
    batch, heads, rows, width = query.shape
    rounded_width = _rounded(width, 32) if width <= 192 else 256
    expanded = 2 * batch * key.shape[2] * heads * width * query.element_size() if key.shape[1] != heads else 0
    return int(_FLOAT * batch * heads * _rounded(rows, 128) * (rounded_width + 1) + expanded)


def efficient_backward_bytes(query: Any, key: Any, value: Any, capability: tuple[int, int]) -> int:
    """Return the bytes of the temporaries of the memory-efficient kernel, of tensors (batch, heads, rows, width).

    In float32 they are a product as large as the output, its sums over rows, and a copy of those:

    >>> import torch
    >>> single = torch.empty(2, 12, 1000, 64, device="meta")
    >>> efficient_backward_bytes(single, single, single, (8, 0)) == 4 * 2 * 12 * 1000 * (64 + 2)
    True
    """
    batch, heads, rows, width = query.shape
    if query.element_size() == _FLOAT:
        return int(_FLOAT * batch * heads * rows * (value.shape[-1] + 2))
    widest = max(width, value.shape[-1])
    side, in_registers = _tile(widest, capability)
    tile = side * side * _FLOAT + _TILE_HEADER_BYTES
    elsewhere = -(-rows // side) * -(-width // side) * tile
    if not in_registers:
        splits = max(1, min(-(-key.shape[2] // side), 200 // (batch * heads)))
        elsewhere += splits * side * (_rounded(width, side) + _rounded(value.shape[-1], side)) * _FLOAT
    return int(batch * heads * (elsewhere + _FLOAT * rows))


def _tile(width: int, capability: tuple[int, int]) -> tuple[int, bool]:
    """Return rows of a tile of 16 bits, and whether gradients of keys and values fit registers at this width."""
    if width <= 64:
        return 64, True
    if width <= 96 and capability >= (8, 0):
        return 128, True
    if width <= 128 and capability in _LARGE_SHARED_MEMORY:
        return 128, True
    return (64, False) if width <= 128 else (128 if capability >= (8, 0) else 64, False)


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step
