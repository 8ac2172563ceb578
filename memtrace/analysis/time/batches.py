"""How much data goes through a step: the inputs of its forward passes, by their shapes.

In: the rows of owners that are inputs of root modules. Out: samples and tokens a step. The rows of one moment are the
inputs of one forward, of a module that has parameters and is trained. Its tokens are the first input of whole numbers
with two axes, batch and sequence (`input_ids` where one is named so), if all inputs have as many rows; its samples the
first axis of that, or else of the first input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.analysis.events.innermost import Spans
from memtrace.schema.input_names import is_given_to_a_model
from memtrace.schema.names import Category, Phase
from memtrace.schema.shapes import parse_shape
from memtrace.store.columns import IntArray
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
    owners, rows = rank.table("owners"), inputs_of_training(rank)
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
    batches = {step: _together(one, expected.get(step, 0)) for step, one in found.items()}
    return {step: batch for step, batch in batches.items() if batch is not None}


def _together(batches: list[Batch], num_microbatches: int) -> Batch | None:
    """Return what went through a step; `None` where it is not known which of its forwards took in the data.

    With more forwards than micro-batches, several models were called, or one several times. Each micro-batch has then
    as many, and they all take in as many samples.
    """
    if not num_microbatches or len(batches) % num_microbatches:
        return None
    num_calls = len(batches) // num_microbatches
    groups = [batches[at : at + num_calls] for at in range(0, len(batches), num_calls)]
    if any(len({one.samples for one in group}) > 1 for group in groups):
        return None
    first, *rest = (group[0] if num_calls == 1 else Batch(tokens=None, samples=group[0].samples) for group in groups)
    return sum(rest, first)


def inputs_of_training(rank: RankTrace) -> IntArray:
    """Return the rows of owners that are inputs of a model in a training forward."""
    rows = _of_models(rank)
    return rows[~_is_evaluated(rank, rank.table("owners")["time_ns"][rows])]


def batch_before(rank: RankTrace, time_ns: int) -> Batch | None:
    """Return what went into the last forward that began up to a time; `None` where that is not known."""
    owners, rows = rank.table("owners"), _of_models(rank)
    times = owners["time_ns"][rows]
    rows = rows[times == times[times <= time_ns].max(initial=-1)]
    inputs = _Inputs(rank)
    found = [inputs.described(*(int(owners[name][row]) for name in ("name", "dtype", "shape"))) for row in rows]
    return _batch(found) if found else None


def _of_models(rank: RankTrace) -> IntArray:
    """Return the rows of owners that are inputs of a module with parameters: a loss has no batch of its own."""
    owners = rank.table("owners")
    rows = np.flatnonzero(owners["category"] == rank.string_id(Category.INPUT.value))
    names = owners["name"][rows]
    given = [name for name in np.unique(names).tolist() if is_given_to_a_model(rank.text(name))]
    return rows[np.isin(names, given)]


def _is_evaluated(rank: RankTrace, times_ns: IntArray) -> npt.NDArray[np.bool_]:
    """Return whether evaluation ran at each time."""
    phases = rank.table("phases")
    found = Spans.build(phases["start_ns"], phases["end_ns"]).innermost(times_ns)
    return np.append(phases["phase"] == rank.string_id(Phase.EVALUATION.value), False)[found]


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
    named = next((one for one in tokens if one.is_named), None)
    # Of a graph, whole numbers with two axes are its edges.
    if named is None and len({one.shape[0] for one in inputs if one.shape}) == 1:
        named = next(iter(tokens), None)
    if named is not None:
        rows, columns = named.shape
        return Batch(tokens=rows * columns, samples=rows)
    first = next((one for one in inputs if one.shape), None)
    return Batch(tokens=None, samples=None if first is None else first.shape[0])


def _num_microbatches(rank: RankTrace) -> dict[int, int]:
    """Return for each step that has a backward pass how many micro-batches it has."""
    phases, steps = rank.table("phases"), rank.table("steps")
    has_backward = np.unique(phases["step"][phases["phase"] == rank.string_id(Phase.BACKWARD.value)])
    known = dict(zip(steps["step"].tolist(), steps["num_microbatches"].tolist(), strict=True))
    return {step: known.get(step, 0) for step in has_backward.tolist()}
