"""Steps and phases of a trace that has none: inferred from annotations, stacks, threads and repeated sizes.

In: a rank without marks, as a torch snapshot is. Out: the same rank with them, where it shows a training loop; else
unchanged.

Allocations in the order of time fall into runs: forward, backward and optimizer (see `event_roles`). A forward goes on
until backward begins, since the loss belongs to it; a backward until something else is allocated; an optimizer run ends
with its step. Recomputation is a run within a backward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memtrace.analysis.attribution.event_roles import (
    AGAIN,
    BACKWARD,
    FORWARD,
    OPTIMIZER,
    OTHER,
    alloc_kinds,
    alloc_roles,
    alloc_rows,
)
from memtrace.analysis.attribution.optimizer_ranges import STEP_MARK, annotated_spans
from memtrace.schema.names import Phase, Source
from memtrace.schema.tables import Table
from memtrace.store.columns import NULL, ColumnTable, IntArray, dtype_of
from memtrace.store.trace import RankTrace

_NAMES = {FORWARD: Phase.FORWARD, BACKWARD: Phase.BACKWARD, OPTIMIZER: Phase.OPTIMIZER, AGAIN: Phase.RECOMPUTE}
_KNOWN_BY_HOOKS = ("phases", "scopes", "owners", "saved")


@dataclass(frozen=True, slots=True)
class _Run:
    kind: int
    start_ns: int
    end_ns: int


def with_inferred_marks(rank: RankTrace) -> RankTrace:
    """Return the rank with inferred steps and phases; as it is where hooks left any mark or owner."""
    marked_steps = rank.source != Source.KINETO.value and len(rank.table("steps"))
    if marked_steps or any(len(rank.table(name)) for name in _KNOWN_BY_HOOKS):
        return rank
    runs = _runs(rank)
    found = {run.kind for run in runs}
    if BACKWARD not in found and found != {OPTIMIZER}:
        # Forwards alone may be inference: they make no step. Without any stack, annotations tell the steps at least.
        return rank
    phases, steps = _rows(runs, int(rank.table("events")["time_ns"].min()))
    if len(rank.table("steps")):
        # The program marked steps for the profiler.
        return _with_rows(rank, {"phases": [{**one, "step": _step_at(rank, one["start_ns"])} for one in phases]})
    return _with_rows(rank, {"phases": phases, "steps": steps})


def _step_at(rank: RankTrace, time_ns: int) -> int:
    """Return the step that the profiler was told of at a time; 0 outside any."""
    table = rank.table("steps")
    inside = (table["start_ns"] <= time_ns) & ((table["end_ns"] >= time_ns) | (table["end_ns"] == NULL))
    return int(table["step"][inside][0]) if inside.any() else 0


def _runs(rank: RankTrace) -> list[_Run]:
    """Return the runs of forward, backward (each followed by the recomputations in it) and optimizer, in order."""
    events = rank.table("events")
    rows = alloc_rows(rank)
    times = events["time_ns"][rows]
    if not len(rows) or np.any(times == NULL):
        return []
    after_ns = int(events["time_ns"].max()) + 1
    spans = [(start, max(start, min(end, after_ns))) for start, end in annotated_spans(rank, STEP_MARK)]
    spans = [span for span in spans if span[1] >= times[0]]
    kinds = alloc_kinds(alloc_roles(rank, rows), times, spans)
    if not np.isin(kinds, (FORWARD, BACKWARD, AGAIN)).any():
        return _annotated_runs(spans, times)
    # A step that allocates nothing is a run all the same.
    times = np.concatenate([times, np.array(spans, np.int64).reshape(-1)])
    kinds = np.concatenate([kinds, np.full(2 * len(spans), OPTIMIZER)])
    order = np.argsort(times, kind="stable")
    times, kinds = times[order], kinds[order]
    outer = np.where(kinds == AGAIN, BACKWARD, kinds)
    runs = []
    for first, last, next_ns in _stretches(outer, times, after_ns):
        run = _run(int(outer[first]), first, last, next_ns, times)
        runs.append(run)
        if run.kind == BACKWARD:
            inside = slice(first, last + 1)
            for begin, _, stop_ns in _stretches(kinds[inside], times[inside], run.end_ns):
                if kinds[inside][begin] == AGAIN:
                    runs.append(_Run(AGAIN, int(times[inside][begin]), stop_ns))
    return runs


def _annotated_runs(spans: Sequence[tuple[int, int]], times: IntArray) -> list[_Run]:
    """Return one run for each annotated step; those with no alloc in between are one step of several optimizers."""
    runs: list[_Run] = []
    for start, end in spans:
        if runs and np.searchsorted(times, runs[-1].end_ns) == np.searchsorted(times, start):
            runs[-1] = _Run(OPTIMIZER, runs[-1].start_ns, end)
        else:
            runs.append(_Run(OPTIMIZER, start, end))
    return runs


def _stretches(kinds: IntArray, times: IntArray, end_ns: int) -> list[tuple[int, int, int]]:
    """Return first, last and the time of the next stretch, for each stretch of one kind; `OTHER` parts none."""
    marked = np.flatnonzero(kinds)
    if not len(marked):
        return []
    firsts = marked[np.flatnonzero(np.diff(kinds[marked], prepend=OTHER))]
    lasts = marked[np.flatnonzero(np.diff(kinds[marked], append=OTHER))]
    following = np.append(times[firsts[1:]], end_ns)
    return list(zip(firsts.tolist(), lasts.tolist(), following.tolist(), strict=True))


def _run(kind: int, first: int, last: int, next_ns: int, times: IntArray) -> _Run:
    """Return a run; it ends where the next begins, or something of no kind is allocated."""
    end_ns = next_ns
    if kind == OPTIMIZER:
        end_ns = min(next_ns, int(times[last]) + 1)
    elif kind == BACKWARD and last + 1 < len(times):
        end_ns = min(next_ns, max(int(times[last + 1]), int(times[last]) + 1))
    return _Run(kind, int(times[first]), end_ns)


def _rows(runs: Sequence[_Run], first_ns: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows of phases and steps: a step ends with the last optimizer run before the next forward."""
    phases: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    starts, step, backwards = runs[0].start_ns, 1, 0
    has_others = any(run.kind != OPTIMIZER for run in runs)
    if first_ns < starts:
        steps.append({"step": 0, "start_ns": first_ns, "end_ns": starts, "recorded": True})
    for at, run in enumerate(runs):
        phase = {"phase": _NAMES[run.kind].value, "step": step, "start_ns": run.start_ns, "end_ns": run.end_ns}
        backwards += run.kind == BACKWARD
        phases.append({**phase, "microbatch": max(backwards - (run.kind != FORWARD), 0)})
        if run.kind == OPTIMIZER and (not has_others or at + 1 == len(runs) or runs[at + 1].kind != OPTIMIZER):
            row = {"step": step, "start_ns": starts, "end_ns": run.end_ns, "recorded": True}
            steps.append({**row, "num_microbatches": backwards})
            starts, step, backwards = run.end_ns, step + 1, 0
    if runs[-1].kind != OPTIMIZER:
        steps.append({"step": step, "start_ns": starts, "recorded": False, "num_microbatches": backwards})
    return phases, steps


def _with_rows(rank: RankTrace, rows: dict[str, list[dict[str, Any]]]) -> RankTrace:
    """Return the rank with these rows in place of empty tables."""
    words = [phase.value for phase in Phase if phase.value not in rank.strings]
    rank = dataclasses.replace(rank, strings=(*rank.strings, *words))
    tables = {name: _table(rank, rank.table(name).table, values) for name, values in rows.items()}
    return dataclasses.replace(rank, tables={**rank.tables, **tables})


def _table(rank: RankTrace, table: Table, rows: list[dict[str, Any]]) -> ColumnTable:
    columns = {}
    for column in table.columns:
        missing: Any = NULL if column.nullable else 0
        values = [row.get(column.name, missing) for row in rows]
        if column.kind == "string":
            values = [rank.string_id(value) if isinstance(value, str) else value for value in values]
        columns[column.name] = np.array(values, dtype_of(column))
    return ColumnTable(table, columns)
