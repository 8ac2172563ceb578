"""Batches of different sizes: one that is much larger than the others, or each larger than the one before.

In: `Case` with steps and inputs of training forwards. Out: `Finding`s. Padding to the longest sample of a batch, or
batches of so many samples instead of so many tokens, make steps of different sizes; the largest decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.device.steps import has_high_water_marks, step_spans
from memtrace.analysis.faults.odd_steps import odd_step
from memtrace.analysis.results.report import Finding
from memtrace.schema.input_names import is_given_to_a_model
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL

_ODD_TIMES = 1.5
"""A batch so many times as large as the median is odd."""
_ODD_SHARE = 1 / 3
"""Where more of the steps are odd, sizes vary, and no single batch is to blame."""
_AS_HIGH = 0.9
_AGAIN_SHARE = 0.1
"""Where more of all steps, recorded or not, come nearly as high, large batches are a part of the data: a bucket."""
_LEAST_STEPS = 3
_HIGHER_TIMES = 1.1
"""The peak of an odd step is so many times that of the others at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The largest micro-batch of a step."""

    step: int
    num_bytes: int
    shape: str
    row: int
    """Row of owners of its largest tensor."""
    peak_bytes: int
    """Of the step."""


def odd_batch(case: Case) -> Finding | None:
    """Return the step that makes the peak by a batch much larger than the others, or by what it makes of its own."""
    by_shape = _by_its_shape(case)
    return by_shape if by_shape is not None or _comes_again(case) or not _is_usual(case) else odd_step(case)


def _by_its_shape(case: Case) -> Finding | None:
    batches = _batches(case)
    own = next((one for one in batches if one.peak_bytes == case.peak_bytes), None)
    if own is None or len(batches) < _LEAST_STEPS:
        return None
    median = float(np.median([one.num_bytes for one in batches]))
    odd = [one for one in batches if one.num_bytes >= _ODD_TIMES * median]
    others = [one.peak_bytes for one in batches if one not in odd]
    if own not in odd or len(odd) > _ODD_SHARE * len(batches):
        return None
    usual = min((one for one in batches if one not in odd), key=lambda one: abs(one.num_bytes - median))
    if case.peak_bytes < _HIGHER_TIMES * max(others) or _comes_again(case):
        return None
    return Finding(
        slug="odd-batch",
        severity="warning",
        title=f"Step {own.step} makes the peak because its batch is {own.shape}, where the median is {usual.shape}",
        evidence={
            "step": own.step,
            "shape": own.shape,
            "median_shape": usual.shape,
            "batch_bytes": own.num_bytes,
            "median_batch_bytes": int(median),
            "num_steps": len(batches),
        },
        change="Bound what a batch can come to: truncate long samples, group samples of like length (a bucketing "
        "sampler), or fill batches by tokens and not by samples. Train on the largest batch first, so that it fails at "
        "once if it does.",
        cost="Truncation loses data; grouping makes batches less random.",
        saves_bytes=case.peak_bytes - max(others),
        saves_ns=None,
        new_peak_bytes=max(others),
        rank=case.history.rank.rank,
        where=_line_of(case, own),
    )


def growing_batches(case: Case) -> Finding | None:
    """Return that memory grows because batches do, where each is larger than the one before."""
    batches = _batches(case)
    if len(batches) <= _LEAST_STEPS or case.peak_bytes != batches[-1].peak_bytes:
        return None
    sizes, peaks = ([getattr(one, name) for one in batches] for name in ("num_bytes", "peak_bytes"))
    if sizes[-1] < _ODD_TIMES * sizes[0] or not (_rise(sizes) and _rise(peaks)):
        return None
    first, last = batches[0], batches[-1]
    return Finding(
        slug="growing-batches",
        severity="warning",
        title=f"Memory grows because each batch is larger than the one before: {first.shape} in step {first.step}, "
        f"{last.shape} in step {last.step}",
        evidence={
            "first_shape": first.shape,
            "last_shape": last.shape,
            "first_peak_bytes": first.peak_bytes,
            "last_peak_bytes": last.peak_bytes,
            "num_steps": len(batches),
        },
        change="Nothing piles up. Train on the largest batches first, or in random order: blocks that were freed then "
        "serve the smaller ones, while of growing sizes none fits. On a GPU "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True helps as well.",
        cost="None.",
        saves_bytes=None,
        saves_ns=None,
        new_peak_bytes=None,
        rank=case.history.rank.rank,
        where=_line_of(case, last),
    )


def _is_usual(case: Case) -> bool:
    """Return whether the step that peaks has a batch like the others, as far as batches are known."""
    batches = _batches(case)
    own = next((one for one in batches if one.peak_bytes == case.peak_bytes), None)
    return own is None or own.num_bytes <= _HIGHER_TIMES * float(np.median([one.num_bytes for one in batches]))


def _comes_again(case: Case) -> bool:
    """Return whether more than a few steps come nearly as high as the peak, by their marks where they have one."""
    steps = case.history.rank.table("steps")
    peaks = _peaks(case)
    if has_high_water_marks(case.history):
        marked = (steps["step"] >= 1) & (steps["high_water_bytes"] != NULL)
        marks = zip(steps["step"][marked].tolist(), steps["high_water_bytes"][marked].tolist(), strict=True)
        peaks = dict(marks) | peaks
    num_high = sum(one >= _AS_HIGH * case.peak_bytes for one in peaks.values())
    return num_high > max(1, _AGAIN_SHARE * len(peaks))


def _peaks(case: Case) -> dict[int, int]:
    """Return the peak of each step that was recorded whole."""
    return {
        span.step: int(case.level[span.first : span.last + 1].max())
        for span in step_spans(case.history).values()
        if span.recorded and span.step >= 1
    }


def _rise(values: list[int]) -> bool:
    return all(after > before for before, after in itertools.pairwise(values))


def _batches(case: Case) -> list[_Batch]:
    """Return the largest micro-batch of each step that was recorded whole."""
    history, peaks = case.history, _peaks(case)
    owners = history.rank.table("owners")
    found: dict[int, dict[int, list[int]]] = {}
    for row in _inputs(case):
        if (step := int(owners["step"][row])) in peaks:
            found.setdefault(step, {}).setdefault(int(owners["time_ns"][row]), []).append(row)
    tensor_bytes = owners["tensor_bytes"]
    of_rows: Callable[[list[int]], int] = lambda rows: int(tensor_bytes[rows].sum())  # noqa: E731
    batches = []
    for step, passes in sorted(found.items()):
        rows = max(passes.values(), key=of_rows)
        largest = max(rows, key=lambda row: int(tensor_bytes[row]))
        shape = history.rank.text(int(owners["shape"][largest])) or "?"
        batches.append(_Batch(step=step, num_bytes=of_rows(rows), shape=shape, row=largest, peak_bytes=peaks[step]))
    return batches


def _inputs(case: Case) -> list[int]:
    """Return the rows of owners that are inputs of training forwards."""
    rank, owners, phases = case.history.rank, case.history.rank.table("owners"), case.history.rank.table("phases")
    rows = np.flatnonzero(owners["category"] == rank.string_id(Category.INPUT.value))
    at = case.history.phases.innermost(owners["time_ns"][rows])
    # Seen right before a forward, or in it; row -1, no phase, reads the entry at the end.
    rows = rows[np.append(phases["phase"] == rank.string_id(Phase.FORWARD.value), True)[at]]
    return [row for row in rows.tolist() if is_given_to_a_model(rank.text(int(owners["name"][row])))]


def _line_of(case: Case, batch: _Batch) -> dict[str, object] | None:
    """Return the line that makes a batch, or else the line of the forward that is given it."""
    allocation = int(case.history.attribution.allocation_of_owner[batch.row])
    if allocation >= 0 and case.lifetimes.stack[allocation] != NULL:
        return place_of(case.history, np.array([allocation]))
    lifetimes = case.lifetimes
    # Later steps are recorded without lines, and call the forward where the first did.
    made = np.flatnonzero(case.in_phase(Phase.FORWARD) & (lifetimes.stack != NULL))
    live = made[np.isin(made, case.live_at_peak)]
    rows = live if len(live) else made
    return case.line_above(rows)
