"""The environment variables that a trace may hold."""

from __future__ import annotations

RECORDED_VARIABLES = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_HIP_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "TORCH_CUDNN_V8_API_DISABLED",
    "NCCL_BUFFSIZE",
    "OMP_NUM_THREADS",
    "MALLOC_ARENA_MAX",
    "WORLD_SIZE",
    "MEMTRACE_DRIVERLESS",
)
"""All of them change how much memory is taken; under the last no GPU took part."""
