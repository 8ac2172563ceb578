"""Single cells of recurrent layers, which CUDA has in one kernel after two products (`RNN.cu`), and what that keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.fake.events.storages import CUDA, FakeMemory

_aten = torch.ops.aten
_KEPT_BY_GRU = 5
"""Numbers for each unit of a sample."""


def handlers(memory: FakeMemory, cast: Callable[[Any, torch.dtype], Any]) -> dict[Any, Callable[..., Any]]:
    """Return what to call in the place of functions of torch; `cast` is what autocast does with arguments."""

    def fused(function: Any, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(one: Any, state: Any, *weights: Any) -> Any:
            if not one.is_meta or memory.kind_of(one) != CUDA:
                return function(one, state, *weights)
            if torch.is_autocast_enabled("cuda"):
                dtype = torch.get_autocast_dtype("cuda")
                weights = tuple([cast(each, dtype) for each in reversed(weights)][::-1])
                state, one = cast(state, dtype), cast(one, dtype)
            on_input, on_state, *biases = weights
            last = state[0] if isinstance(state, (list, tuple)) else state
            of_input, of_state = torch.nn.functional.linear(one, on_input), torch.nn.functional.linear(last, on_state)
            return kernel(of_input, of_state, state, biases)

        return call

    def lstm(of_input: Any, of_state: Any, states: Any, biases: Any) -> Any:
        return _aten._thnn_fused_lstm_cell(of_input, of_state, states[1], *biases)[:2]

    def gru(of_input: Any, of_state: Any, state: Any, biases: Any) -> Any:
        return _aten._thnn_fused_gru_cell(of_input, of_state, state, *biases)[0]

    return {torch.lstm_cell: fused(torch.lstm_cell, lstm), torch.gru_cell: fused(torch.gru_cell, gru)}


def answers() -> dict[Any, Callable[..., Any]]:
    """Return what to call in the place of operators."""
    return {
        _aten._thnn_fused_lstm_cell_backward_impl.default: _lstm_backward,
        _aten._thnn_fused_gru_cell.default: _gru,
        _aten._thnn_fused_gru_cell_backward.default: _gru_backward,
    }


def _lstm_backward(_of_last: Any, _of_cell: Any, cell: Any, _made: Any, kept: Any, has_bias: bool) -> Any:
    of_gates = torch.empty_like(kept)
    return of_gates, torch.empty_like(cell), _summed(of_gates) if has_bias else None


def _gru(of_input: Any, _of_state: Any, state: Any, *_biases: Any) -> Any:
    samples, width = state.shape
    return torch.empty_like(state), of_input.new_empty(samples, _KEPT_BY_GRU * width)


def _gru_backward(of_last: Any, kept: Any, has_bias: bool) -> Any:
    samples, width = of_last.shape
    of_input, of_state = (kept.new_empty(samples, 3 * width) for _ in range(2))
    biases = [_summed(one) if has_bias else None for one in (of_input, of_state)]
    return of_input, of_state, torch.empty_like(of_last, memory_format=torch.contiguous_format), *biases


def _summed(one: Any) -> Any:
    return one.new_empty(one.shape[1])
