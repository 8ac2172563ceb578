"""Recurrent layers on the fake device, as torch hands them to cuDNN: what is asked for, in order.

In Python: calls of `torch.lstm` and its like become one operator, as on CUDA, and weights lie in one piece. Below
autograd: what that operator and its backward make (`aten/src/ATen/native/cudnn/RNN.cpp`, torch 2.13; `tests/driverless`
compares the requests). What cuDNN itself keeps and takes stands in `recurrent_memory.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.backends.cudnn.rnn  # torch 2.6 to 2.9 import it only with the first recurrent layer

from memtrace.hooks.fake.events.storages import CUDA, FakeMemory
from memtrace.hooks.fake.kernels.recurrent_memory import GRU, LSTM, RELU, TANH, Layers
from memtrace.hooks.fake.kernels.reductions import Multiprocessors

_aten = torch.ops.aten
_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_FLATTENED = (torch.float32, torch.float16, torch.float64)
"""Types whose weights a module lays into one piece: `torch.backends.cudnn` leaves bfloat16 out."""
_CELLS = {torch.rnn_relu: RELU, torch.rnn_tanh: TANH, torch.lstm: LSTM, torch.gru: GRU}
_STATE_BYTES = 16
"""Of the generator that drops units out, for each thread that the GPU can hold: assumed, it is not public."""


class Recurrent:
    """Answers for recurrent layers."""

    def __init__(self, memory: FakeMemory, gpu: Multiprocessors | None) -> None:
        """Without multiprocessors, as for GPUs of other vendors, layers go step by step."""
        self._memory = memory
        self._gpu = gpu
        self._has_state = False

    def install(self) -> None:
        """Let modules lay their weights into one piece. Affects: `torch`, `torch.backends.cudnn`."""
        if self._gpu is None:
            return
        backends, names = torch.backends, {"RNN_RELU": RELU, "RNN_TANH": TANH, "LSTM": LSTM, "GRU": GRU}
        cudnn: Any = backends.cudnn
        cudnn.is_acceptable = lambda one: self._takes(one) and one.dtype in _FLATTENED
        cudnn.rnn.get_cudnn_mode = names.__getitem__
        functions: Any = torch
        functions._use_cudnn_rnn_flatten_weight = lambda: True

    def handlers(self) -> dict[Any, Callable[..., Any]]:
        """Return what to call in the place of functions of torch."""
        if self._gpu is None:
            return {}
        found: dict[Any, Callable[..., Any]] = {one: self._handler(one, cell) for one, cell in _CELLS.items()}
        return {**found, torch._cudnn_rnn_flatten_weight: self._flatten}

    def answers(self) -> dict[Any, Callable[..., Any]]:
        """Return what to call in the place of operators."""
        return {_aten._cudnn_rnn.default: self._forward, _aten._cudnn_rnn_backward.default: self._backward}

    def _takes(self, one: Any) -> bool:
        with torch._C.DisableTorchFunction():
            is_there = one.is_meta and one.numel() > 0 and self._memory.kind_of(one) == CUDA
        return bool(is_there and one.dtype in _TYPES and torch.backends.cudnn.enabled)

    def _made(self, *shape: int, like: Any, dtype: torch.dtype | None = None) -> Any:
        """Return a tensor that takes its memory now, and not once the operator is done."""
        made = torch.empty(shape, dtype=dtype or like.dtype, device="meta")
        self._memory.adopt(made, CUDA)
        return made

    def _handler(self, function: Any, cell: int) -> Callable[..., Any]:
        def call(one: Any, *args: Any) -> Any:
            is_packed = len(args) > 2 and isinstance(args[2], (list, tuple))
            lengths: Any = args[0] if is_packed else None
            if not self._takes(one) or (is_packed and lengths.is_meta):
                return function(one, *args)
            states, weights, _, number, dropout, train, both = args[is_packed : is_packed + 7]
            state, inner = states if cell == LSTM else (states, None)
            batch_first = False if is_packed else args[7]
            one, weights, piece, state, inner = self._cast(one, weights, state, inner)
            projected = state.shape[2] if inner is not None and inner.shape[2] != state.shape[2] else 0
            hidden = inner.shape[2] if projected else state.shape[2]
            self._take_generator(dropout if train else 0)
            sizes = lengths.tolist() if lengths is not None else []
            found = _aten._cudnn_rnn(
                one, weights, len(weights) // (number * (2 if both else 1)), piece, state, inner, cell, hidden,
                projected, number, batch_first, dropout, train, both, sizes, None,
            )  # fmt: skip
            return found[:3] if cell == LSTM else found[:2]

        return call

    def _take_generator(self, dropout: float) -> None:
        assert self._gpu is not None
        if dropout > 0 and not self._has_state:
            self._has_state = True
            self._memory.workspace(self._gpu.number * self._gpu.threads * _STATE_BYTES)

    def _cast(self, one: Any, weights: Any, state: Any, inner: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Return input, weights, the piece that these lie in, and states, cast where autocast asks for it.

        It asks for float16, whichever type it lowers everything else to (`autocast_mode`'s `RNN.cpp`).
        """
        dtype = torch.float16
        if not torch.is_autocast_enabled("cuda") or one.dtype is torch.float64:
            return one, weights, _piece_of(weights), state, inner
        piece = None
        if any(each.dtype is not dtype for each in weights):
            piece = self._made(sum(each.numel() for each in weights), like=one, dtype=dtype)
            weights = [_Lowered.apply(each, part) for each, part in zip(weights, _parts(piece, weights), strict=True)]
        inner = None if inner is None else inner.to(dtype)
        return one.to(dtype), weights, piece, state.to(dtype), inner

    def _flatten(self, weights: Sequence[Any], _stride: int, width: int, cell: int, hidden: int, *args: Any) -> Any:
        projected, number, _, both = args
        layers = Layers(
            cell=cell, width=width, hidden=hidden, projected=projected, number=number, directions=1 + int(both)
        )
        piece = self._made(layers.num_weights, like=weights[0])
        for one, part in zip(weights, _parts(piece, weights), strict=True):
            one.data = part
        return piece

    def _forward(self, one: Any, weights: Any, stride: int, piece: Any, state: Any, inner: Any, *rest: Any) -> Any:
        batch_first, _, train, _, sizes, _ = rest[4:]
        layers, places, steps, samples = _described(one, inner, rest)
        one = one.transpose(0, 1) if batch_first and not sizes else one
        copied = self._dense(one)
        output = self._made(*places, layers.output * layers.directions, like=one)
        heights = (layers.number * layers.directions, samples)
        last = self._made(*heights, layers.output, like=state)
        cell = self._made(*heights, layers.hidden, like=state) if inner is not None else self._made(0, like=state)
        if piece is None:
            piece = self._made(layers.num_weights, like=one)
        workspace = self._bytes(one, layers.workspace(steps, samples))
        kept = self._bytes(one, layers.reserve(steps, samples) if train else 0)
        del workspace, copied
        return output.transpose(0, 1) if batch_first and not sizes else output, last, cell, kept, piece

    def _backward(self, one: Any, weights: Any, stride: int, piece: Any, state: Any, inner: Any, *rest: Any) -> Any:
        output, of_output, of_last, of_cell, *rest_of = rest
        batch_first, sizes, mask = rest_of[4], rest_of[8], rest_of[11]
        layers, _, steps, samples = _described(one, inner, rest_of)
        of_output = self._like(output) if of_output is None else of_output
        of_last = self._like(state) if of_last is None else of_last
        of_cell = self._like(inner) if of_cell is None and inner is not None else of_cell
        swaps = batch_first and not sizes
        one, of_output = (each.transpose(0, 1) if swaps else each for each in (one, of_output))
        copied = [self._dense(one), self._dense(of_output)]
        made = self._made(*one.shape, like=one)
        copied += [self._dense(each) for each in (of_last, of_cell) if each is not None]
        of_state = self._like(state)
        of_inner = None if inner is None else self._like(inner)
        workspace = self._bytes(one, layers.workspace(steps, samples))
        del workspace
        copied.clear()
        of_weights = self._of_weights(one, weights, piece, layers, (steps, samples)) if mask[3] else []
        return made.transpose(0, 1) if swaps else made, of_state, of_inner, of_weights

    def _of_weights(self, one: Any, weights: Any, piece: Any, layers: Layers, places: tuple[int, int]) -> list[Any]:
        copied = self._dense(one)
        found = self._like(piece)
        workspace = self._bytes(one, layers.workspace(*places))
        parts = _parts(found, weights)
        if sum(part.numel() for part in parts) < layers.num_weights:
            # Without biases gradients are copied out of the piece, which has them all the same.
            parts = [self._like(part) for part in parts]
        del workspace, copied
        return parts

    def _dense(self, one: Any) -> Any:
        return one if one.is_contiguous() else self._made(*one.shape, like=one)

    def _like(self, one: Any) -> Any:
        made = torch.empty_like(one)
        self._memory.adopt(made, CUDA)
        return made

    def _bytes(self, one: Any, elements: int) -> Any:
        return self._made(elements * one.element_size(), like=one, dtype=torch.uint8)


class _Lowered(torch.autograd.Function):  # type: ignore[misc]  # torch leaves it untyped
    """Copies a weight into its place in a piece of another type, as autocast does."""

    @staticmethod
    def forward(context: Any, weight: Any, place: Any) -> Any:
        """Return the place."""
        context.dtype = weight.dtype
        return place.view_as(place)

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        """Return the gradient in the type of the weight."""
        return gradient.to(context.dtype), None


def _described(one: Any, inner: Any, rest: Sequence[Any]) -> tuple[Layers, tuple[int, ...], int, int]:
    """Return the layers, the shape of the places that they go over, and how many steps and samples those are."""
    cell, hidden, projected, number, batch_first, _, _, both, sizes = rest[:9]
    layers = Layers(
        cell=cell, width=one.shape[-1], hidden=hidden, projected=projected, number=number, directions=1 + int(both)
    )
    if sizes:
        return layers, (one.shape[0],), len(sizes), sizes[0]
    steps, samples = (one.shape[1], one.shape[0]) if batch_first else one.shape[:2]
    return layers, (steps, samples), steps, samples


def _parts(piece: Any, weights: Sequence[Any]) -> list[Any]:
    """Return views of a piece in the shapes of weights."""
    ends = [0]
    for one in weights:
        ends.append(ends[-1] + one.numel())
    return [piece[start:end].view(one.shape) for (start, end), one in zip(pairwise(ends), weights, strict=True)]


def _piece_of(weights: Sequence[Any]) -> Any:
    """Return the piece that weights lie in; `None` if they lie apart."""
    storages = {one.untyped_storage()._cdata for one in weights}
    first = weights[0]
    whole = first.untyped_storage().nbytes() // first.element_size()
    if len(storages) > 1 or whole < sum(one.numel() for one in weights):
        return None
    return first.detach().as_strided((whole,), (1,), 0)
