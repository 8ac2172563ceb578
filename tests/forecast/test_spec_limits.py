"""What a model cannot be is refused at its first wrong value, and not before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memtrace.errors import MemtraceError
from memtrace.forecast.model.presets import preset


@pytest.mark.parametrize("name", ["embedding_dropout", "attention_dropout", "hidden_dropout"])
def test_a_probability_lies_from_zero_to_below_one(name: str) -> None:
    spec = preset("llama-3-8b")
    for allowed in (0.0, 0.999):
        assert getattr(replace(spec, **{name: allowed}), name) == allowed
    for refused in (-0.001, 1.0):
        with pytest.raises(MemtraceError, match=name):
            replace(spec, **{name: refused})
