"""How much data goes through a step: the inputs of its forward passes, by their shapes.

In: the rows of owners that are inputs of root modules. Out: samples and tokens a step. The rows of one moment are the
inputs of one forward. Its tokens are the first input of whole numbers with two axes, batch and sequence (`input_ids`
where one is named so); its samples the first axis of that, or else of the first input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.analysis.advice.kept import parse_shape
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace

_WHOLE = ("int64", "int32", "int16", "uint16")
_TOKEN_NAME = "input_ids"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What went into one or more forward passes."""

    tokens: int | None
    samples: int | None

    def __add__(self, other: Batch) -> Batch:
        return Batch(tokens=_sum(self.tokens, other.tokens), samples=_sum(self.samples, other.samples))


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def batches_of_steps(rank: RankTrace) -> dict[int, Batch]:
    """Return what went through each step whose every training forward is known."""
    owners = rank.table("owners")
    rows = np.flatnonzero(owners["category"] == rank.string_id(Category.INPUT.value))
    found: dict[int, list[Batch]] = {}
    times = owners["time_ns"][rows]
    bounds = np.flatnonzero(np.append(True, times[1:] != times[:-1])) if len(rows) else rows
    for of_forward in np.split(rows, bounds[1:]):
        if len(of_forward):
            step = int(owners["step"][of_forward[0]])
            found.setdefault(step, []).append(_batch([owners.row(row) for row in of_forward.tolist()], rank))
    expected = _num_microbatches(rank)
    # More forwards than micro-batches: several models, or one called twice. Which of them are the data is not known.
    return {step: sum(rest, first) for step, (first, *rest) in found.items() if 1 + len(rest) == expected.get(step)}


def _num_microbatches(rank: RankTrace) -> dict[int, int]:
    """Return for each step how many of its micro-batches had a backward pass."""
    phases = rank.table("phases")
    chosen = np.flatnonzero(phases["phase"] == rank.string_id(Phase.BACKWARD.value))
    counted: dict[int, set[int]] = {}
    for step, microbatch in zip(phases["step"][chosen].tolist(), phases["microbatch"][chosen].tolist(), strict=True):
        counted.setdefault(step, set()).add(microbatch)
    return {step: len(numbers) for step, numbers in counted.items()}


def _batch(inputs: list[dict[str, int | None]], rank: RankTrace) -> Batch:
    """Return what one forward takes in."""
    named = sorted(inputs, key=lambda one: rank.text(_id(one["name"])) != _TOKEN_NAME)
    shapes = [(parse_shape(rank.text(_id(one["shape"]))) or (), rank.text(_id(one["dtype"]))) for one in named]
    tokens = next((shape for shape, dtype in shapes if len(shape) == 2 and dtype in _WHOLE), None)
    if tokens is not None:
        return Batch(tokens=tokens[0] * tokens[1], samples=tokens[0])
    first = next((shape for shape, _ in shapes if shape), None)
    return Batch(tokens=None, samples=None if first is None else first[0])


def _id(value: int | None) -> int:
    return NULL if value is None else value
