"""How much data goes through a step: the inputs of its forward passes, by their shapes.

In: the rows of owners that are inputs of root modules. Out: samples and tokens a step. The rows of one moment are the
inputs of one forward. Its tokens are the first input of whole numbers with two axes, batch and sequence (`input_ids`
where one is named so); its samples the first axis of that, or else of the first input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.schema.names import Category, Phase
from memtrace.schema.shapes import parse_shape
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
    names, dtypes, shapes = (owners[name][rows].tolist() for name in ("name", "dtype", "shape"))
    inputs = _Inputs(rank)
    by_forward: dict[tuple[int, int], list[_Input]] = {}
    keys = zip(owners["step"][rows].tolist(), owners["time_ns"][rows].tolist(), strict=True)
    for key, name, dtype, shape in zip(keys, names, dtypes, shapes, strict=True):
        by_forward.setdefault(key, []).append(inputs.described(name, dtype, shape))
    found: dict[int, list[Batch]] = {}
    for (step, _), given in by_forward.items():
        found.setdefault(step, []).append(_batch(given))
    expected = _num_microbatches(rank)
    # More forwards than micro-batches: several models, or one called twice. Which of them are the data is not known.
    return {step: sum(rest, first) for step, (first, *rest) in found.items() if 1 + len(rest) == expected.get(step)}


@dataclass(frozen=True, slots=True)
class _Input:
    """One input of a forward."""

    shape: tuple[int, ...]
    is_whole: bool
    """Whether it holds whole numbers."""
    is_named: bool
    """Whether its name says that they are tokens."""


class _Inputs:
    """Inputs by the ids of their texts: there are few kinds of them, and many of each."""

    def __init__(self, rank: RankTrace) -> None:
        self._rank = rank
        self._known: dict[tuple[int, int, int], _Input] = {}

    def described(self, name: int, dtype: int, shape: int) -> _Input:
        """Return an input with these texts."""
        key = name, dtype, shape
        if key not in self._known:
            text = self._rank.text
            numbers = parse_shape(text(shape)) or ()
            self._known[key] = _Input(numbers, text(dtype) in _WHOLE, text(name) == _TOKEN_NAME)
        return self._known[key]


def _batch(inputs: list[_Input]) -> Batch:
    """Return what one forward takes in."""
    tokens = [one for one in inputs if one.is_whole and len(one.shape) == 2]
    if tokens:
        rows, columns = next((one for one in tokens if one.is_named), tokens[0]).shape
        return Batch(tokens=rows * columns, samples=rows)
    first = next((one for one in inputs if one.shape), None)
    return Batch(tokens=None, samples=None if first is None else first.shape[0])


def _num_microbatches(rank: RankTrace) -> dict[int, int]:
    """Return for each step how many of its micro-batches had a backward pass."""
    phases = rank.table("phases")
    chosen = np.flatnonzero(phases["phase"] == rank.string_id(Phase.BACKWARD.value))
    counted: dict[int, set[int]] = {}
    for step, microbatch in zip(phases["step"][chosen].tolist(), phases["microbatch"][chosen].tolist(), strict=True):
        counted.setdefault(step, set()).add(microbatch)
    return {step: len(numbers) for step, numbers in counted.items()}
