"""What kernels need beyond their outputs: each a rule with its source. None of them was measured on a GPU.

The first matrix product of each thread takes a workspace from the caching allocator, a handle and stream; autograd's
thread has a handle of its own, so training has two. cublasLt shares it (`TORCH_CUBLASLT_UNIFIED_WORKSPACE`). Its size
is that of `aten/src/ATen/cuda/CublasHandlePool.cpp`. Attention's temporaries are in `attention_memory.py`, those of
reductions in `reductions.py`.

The gradient of an embedding with many indices is added up in parts, after a sort (`EmbeddingBackwardKernel.cu`). Where
few rows are looked up very often, torch skips the parts; the rule does not, and is an upper bound there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from memtrace.hooks.fake.events.storages import FakeMemory
from memtrace.hooks.fake.kernels.attention_memory import efficient_backward_sizes, flash_backward_sizes
from memtrace.hooks.fake.kernels.convolutions import Convolutions
from memtrace.hooks.fake.kernels.copies import copied_bytes
from memtrace.hooks.fake.kernels.cuda_results import temporary_bytes
from memtrace.hooks.fake.kernels.reducing import Reductions
from memtrace.hooks.fake.kernels.reductions import Multiprocessors
from memtrace.hooks.fake.kernels.transforms import temporary_sizes
from memtrace.schema.workspaces import cublas_workspace_bytes

_aten = torch.ops.aten
_PRODUCTS = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten.addmv.default,
    _aten.mv.default,
}
_FEW_INDICES = 3072
_ROWS_PER_THREAD = 10
_LARGEST = 2
"""A bag of embeddings whose largest numbers are taken."""


def embedding_backward_bytes(
    num_indices: int, num_weights: int, width: int, index_bytes: int = 8, *, few: int = _FEW_INDICES
) -> int:
    """Return the bytes of the temporaries of the gradient of an embedding of `num_weights` rows of `width` elements.

    Indices are sorted, and split into parts of ten equal ones; each part has a row in float32. Up to `few` indices are
    added up as they come.

    >>> embedding_backward_bytes(3072, 50257, 768)
    0
    >>> embedding_backward_bytes(8192, 50257, 768) == (819 + 8192) * 768 * 4 + (3 * 8192 + 2 * 8192 + 9011) * 8
    True
    """
    if num_indices <= few:
        return 0
    segments = min(num_indices, num_weights)
    parts = num_indices // _ROWS_PER_THREAD + segments
    return parts * width * 4 + (3 * num_indices + 2 * segments + parts) * index_bytes


def unfolded_bytes(weight_shape: Sequence[int], out_shape: Sequence[int], element_size: int) -> int:
    """Return the bytes of a convolution's input, unfolded to a matrix: one column for each place of its output.

    What cuDNN takes depends on which of its algorithms it chooses; the plainest of them makes this matrix whole.

    >>> unfolded_bytes((64, 3, 7, 7), (8, 64, 112, 112), 4) == 8 * 112 * 112 * 3 * 7 * 7 * 4
    True
    """
    places = math.prod(out_shape) // max(out_shape[1], 1)
    return places * math.prod(weight_shape[1:]) * element_size


def convolution_facts() -> dict[str, bool]:
    """Return whether the program lets cuDNN try algorithms: each trial takes what that algorithm needs."""
    return {"cudnn_benchmark": True} if torch.backends.cudnn.benchmark else {}


def convolution_bytes(args: Any, out: Any) -> int:
    """Return the same of a call of `aten::convolution`; one that is transposed is unfolded where its input is."""
    inputs, weight, is_transposed = args[0], args[1], args[6]
    return unfolded_bytes(weight.shape, (inputs if is_transposed else out).shape, inputs.element_size())


def convolution_backward_bytes(args: Any, _out: Any = None) -> int:
    """Return the same of a call of `aten::convolution_backward`."""
    gradient, inputs, weight, is_transposed = args[0], args[1], args[2], args[7]
    return unfolded_bytes(weight.shape, (inputs if is_transposed else gradient).shape, inputs.element_size())


_ALLOWANCES: dict[Any, Callable[[Any, Any], int]] = {
    _aten.convolution.default: convolution_bytes,
    _aten.convolution_backward.default: convolution_backward_bytes,
}


class Kernels:
    """Records what each kernel takes besides its outputs."""

    def __init__(
        self, memory: FakeMemory, capability: tuple[int, int], multiprocessors: Multiprocessors | None = None
    ) -> None:
        """Prepare for a GPU; without its multiprocessors, what reductions take is not known."""
        self._memory = memory
        self.convolutions = Convolutions(
            lambda: memory.allocated_bytes, lambda one: memory.address_of(one.untyped_storage())
        )
        """The convolutions so far."""
        self._reductions = Reductions(multiprocessors)
        self._capability = capability
        self._workspace = cublas_workspace_bytes(capability, os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
        self._has_workspace = {False: False, True: False}
        self._temporaries: dict[Any, Callable[[Any], tuple[int, ...]]] = {
            _aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
            _aten._scaled_dot_product_cudnn_attention_backward.default: _flash_backward,
            _aten._scaled_dot_product_efficient_attention_backward.default: self._efficient_backward,
            _aten.embedding_dense_backward.default: _embedding_backward,
            # With autograd on, the second is seen, otherwise the first, which makes it.
            _aten._embedding_bag_backward.default: lambda args: _bag_backward(args[0], args[1], args[6], args[8]),
            _aten._embedding_bag_dense_backward.default: lambda args: _bag_backward(args[0], args[1], args[5], args[7]),
            **{func: _one(rule) for func, rule in temporary_bytes().items()},
            **temporary_sizes(),
        }

    def before(self, func: Any, args: Any) -> None:
        """Record what an operator takes before it makes its outputs."""
        if func in _PRODUCTS:
            in_backward = torch._C._current_graph_task_id() != -1
            if not self._has_workspace[in_backward]:
                self._has_workspace[in_backward] = True
                self._memory.workspace(self._workspace)

    def after(self, func: Any, args: Any, out: Any) -> None:
        """Record what an operator takes beside its outputs, and gives back."""
        allowance = _ALLOWANCES.get(func)
        if allowance is not None:
            num_bytes = allowance(args, out)
            self._memory.allowance(num_bytes)
            if func is _aten.convolution.default:
                self.convolutions.forward(args[1], num_bytes)
            else:
                self.convolutions.backward(args[2], num_bytes)
        rule = self._temporaries.get(func)
        held = self._reductions.held(func, args, out) if rule is None else rule(args)
        self._memory.temporary(*copied_bytes(func, args), *filter(None, held))

    def _efficient_backward(self, args: Any) -> tuple[int, ...]:
        query, key, value = args[1:4]
        return efficient_backward_sizes(query, key, value, self._capability)


def _one(rule: Callable[[Any], int]) -> Callable[[Any], tuple[int, ...]]:
    return lambda args: (rule(args),)


def _flash_backward(args: Any) -> tuple[int, ...]:
    query, key = args[1:3]
    return flash_backward_sizes(query, key)


def _embedding_backward(args: Any) -> tuple[int, ...]:
    gradient, indices, num_weights = args[:3]
    return (embedding_backward_bytes(indices.numel(), num_weights, gradient.shape[-1], indices.element_size()),)


def _bag_backward(gradient: Any, indices: Any, num_weights: int, mode: int) -> tuple[int, ...]:
    if mode == _LARGEST:
        return ()
    return (embedding_backward_bytes(indices.numel(), num_weights, gradient.shape[-1], indices.element_size(), few=0),)
