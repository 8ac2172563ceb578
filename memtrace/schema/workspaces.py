"""Scratch memory that torch gives cuBLAS, for each handle and stream: `aten/src/ATen/cuda/CublasHandlePool.cpp`."""

from __future__ import annotations

SMALL_CUBLAS_BYTES = 4096 * 1024 * 2 + 16 * 1024 * 8
"""Before compute capability 9: two buffers of 4096 KiB and eight of 16 KiB."""
LARGE_CUBLAS_BYTES = 32 * 1024**2
"""From compute capability 9 (Hopper) on."""
ROCM_BLAS_BYTES = 128 * 1024**2
"""On AMD's GPUs."""
