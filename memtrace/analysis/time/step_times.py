"""How long steps take by the program's own clock, in which phases, and how much data goes through them.

In: a recorded rank. Out: `StepTimes`, `None` where no step was recorded by hooks. On a GPU the CPU runs ahead: the
length of a step is right in the long run, its phases are when the program issued work.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from memtrace.analysis.events.innermost import Spans
from memtrace.analysis.results.step_times import StepTime, StepTimes
from memtrace.analysis.time.batches import batches_of_steps
from memtrace.analysis.time.intervals import Intervals
from memtrace.analysis.time.throughput import throughput
from memtrace.schema.names import Phase, Source
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace


def step_times(rank: RankTrace) -> StepTimes | None:
    """Return the time of each step of a rank."""
    table = rank.table("steps")
    if rank.source != Source.RECORDED.value:
        return None
    phases, batches = _phases_by_step(rank), batches_of_steps(rank)
    steps = []
    for row in table.rows():
        if row["step"] == 0 or row["end_ns"] is None or row["end_ns"] < row["start_ns"]:
            continue
        number, length_ns = row["step"], row["end_ns"] - row["start_ns"]
        within = phases.get(number) if row["recorded"] else None
        batch = batches.get(number) if row["recorded"] else None
        steps.append(
            StepTime(
                step=number,
                start_ns=row["start_ns"],
                end_ns=row["end_ns"],
                recording_ns=row["recording_ns"],
                phases_ns=None if within is None else _with_rest(within, length_ns - (row["recording_ns"] or 0)),
                tokens=None if batch is None else batch.tokens,
                samples=None if batch is None else batch.samples,
            )
        )
    if not steps:
        return None
    return StepTimes(steps=tuple(steps), throughput=throughput(rank, steps))


def _with_rest(phases_ns: Mapping[str, int], length_ns: int) -> dict[str, int]:
    """Return the phases of a step, with what no phase covers."""
    other = phases_ns.get(Phase.OTHER.value, 0)
    told = {name: spent for name, spent in phases_ns.items() if name != Phase.OTHER.value}
    return {**told, Phase.OTHER.value: max(length_ns - sum(told.values()), other)}


def _own_work(rank: RankTrace, spans: Spans) -> IntArray:
    """Return for each phase how long memtrace itself was at work in it, and in none that it contains."""
    table = rank.table("own_work")
    work = Intervals.united(table["start_ns"], table["end_ns"])
    position = np.full(len(spans.rows), -1, np.int64)
    position[spans.rows] = np.arange(len(spans.rows))
    inside = spans.innermost(work.start_ns)
    spent = np.zeros(len(spans.rows), np.int64)
    known = inside >= 0
    np.add.at(spent, position[inside[known]], (work.end_ns - work.start_ns)[known])
    return spent


def _phases_by_step(rank: RankTrace) -> dict[int, dict[str, int]]:
    """Return the time of each phase by step; of phases that nest, the innermost counts."""
    table = rank.table("phases")
    rows = np.flatnonzero(~table.is_null("end_ns") & (table["end_ns"] > table["start_ns"]))
    if not len(rows):
        return {}
    spans = Spans.build(table["start_ns"][rows], table["end_ns"][rows])
    lengths = spans.end_ns - spans.start_ns
    inside = np.zeros(len(rows), np.int64)
    nested = spans.parent >= 0
    np.add.at(inside, spans.parent[nested], lengths[nested])
    own = np.maximum(lengths - inside - _own_work(rank, spans), 0)
    found: dict[int, dict[str, int]] = {}
    ordered = rows[spans.rows]
    for step, phase, spent in zip(
        table["step"][ordered].tolist(), table["phase"][ordered].tolist(), own.tolist(), strict=True
    ):
        if phase != NULL:
            of_step = found.setdefault(step, {})
            name = rank.strings[phase]
            of_step[name] = of_step.get(name, 0) + spent
    return found
