"""Refusing runs whose bytes 64 bits cannot hold: arrays of numbers would wrap round, and the answer be any number."""

from __future__ import annotations

from memtrace.errors import MemtraceError
from memtrace.forecast.model.parameter_tensors import parameter_tensors
from memtrace.forecast.model.spec import ModelSpec

_MOST_BYTES = 2**62
_BYTES_OF_PARAMETER = 64
"""More than weight, gradient, states and temporaries take of one."""
_BYTES_OF_WIDTH = 64
"""More than a layer keeps of a token for each element of its widest matrix."""
_BYTES_OF_SCORE = 16


def check_countable(spec: ModelSpec, *, tokens: int, sequence: int, has_scores: bool, where: str = "the run") -> None:
    """Check that an upper limit of the bytes of a run fits; `tokens` are those of the largest forward pass.

    Raises:
        MemtraceError: it does not.
    """
    widths = (spec.hidden, spec.ffn, spec.expert_ffn * spec.experts_per_token, spec.shared_ffn, spec.query_width)
    of_token = _BYTES_OF_WIDTH * max(widths) + (_BYTES_OF_SCORE * spec.num_heads * sequence if has_scores else 0)
    weights = _BYTES_OF_PARAMETER * sum(one.numel * one.copies for one in parameter_tensors(spec))
    num_layers = spec.num_layers + spec.num_encoder_layers
    if weights + tokens * (num_layers * of_token + _BYTES_OF_SCORE * spec.vocabulary) >= _MOST_BYTES:
        hint = "no machine has so many: look at the sizes of the model, the sequence and the micro-batch"
        raise MemtraceError(f"{where} needs more bytes than can be counted", hint=hint)
