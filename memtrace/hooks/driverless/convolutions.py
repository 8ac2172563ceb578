"""Convolutions on torch's own CUDA code: what each may take of cuDNN's scratch, by its shapes.

CUDA's own kernels run; this stands before them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.driverless.followed import original
from memtrace.hooks.fake.kernels.convolutions import Convolutions
from memtrace.hooks.fake.kernels.workspaces import convolution_backward_bytes, convolution_bytes


def followed_convolutions(replace: Callable[[str, Callable[..., Any]], None]) -> Convolutions:
    """Return the convolutions that run from now on; `replace` puts a kernel, which takes a key set first, in place."""
    found = Convolutions(_allocated, lambda one: int(one.data_ptr()))
    forward, backward = original("convolution"), original("convolution_backward")
    if forward is None or backward is None:
        return found

    def convolution(keys: Any, *args: Any) -> Any:
        out = forward(keys, *args)
        found.forward(args[1], convolution_bytes(args, out))
        return out

    def convolution_backward(keys: Any, *args: Any) -> Any:
        out = backward(keys, *args)
        found.backward(args[2], convolution_backward_bytes(args))
        return out

    replace("convolution", convolution)
    replace("convolution_backward", convolution_backward)
    return found


def _allocated() -> int:
    return int(torch.cuda.memory_allocated())
