"""Scratch memory that torch gives cuBLAS, for each handle and stream: `aten/src/ATen/cuda/CublasHandlePool.cpp`."""

from __future__ import annotations

import re

SMALL_CUBLAS_BYTES = 4096 * 1024 * 2 + 16 * 1024 * 8
"""Before compute capability 9: two buffers of 4096 KiB and eight of 16 KiB."""
LARGE_CUBLAS_BYTES = 32 * 1024**2
"""From compute capability 9 (Hopper) on."""
ROCM_BLAS_BYTES = 128 * 1024**2
"""On AMD's GPUs."""
CONFIG_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
"""Names other buffers, as `:4096:8` for deterministic products."""
_LARGE_FROM_MAJOR = 9
_KIB = 1024


def cublas_workspace_bytes(capability: tuple[int, int], config: str = "") -> int:
    """Return the bytes of a workspace of cuBLAS: 4096 KiB x 2 + 16 KiB x 8, 32 MiB from compute capability 9 on.

    `config` is what `CUBLAS_WORKSPACE_CONFIG` says. Until torch 2.11 only capability 9 had 32 MiB.

    >>> cublas_workspace_bytes((8, 0)), cublas_workspace_bytes((9, 0)), cublas_workspace_bytes((8, 0), ":4096:8")
    (8519680, 33554432, 33554432)
    """
    pairs = re.findall(r":(\d{1,9}):(\d{1,9})", config)
    if pairs:
        return sum(int(size) * int(count) for size, count in pairs) * _KIB
    return LARGE_CUBLAS_BYTES if capability[0] >= _LARGE_FROM_MAJOR else SMALL_CUBLAS_BYTES
