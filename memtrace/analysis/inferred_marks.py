"""Steps and phases of a snapshot, which has none: inferred from annotations, stacks and threads.

In: a rank without steps and phases. Out: the same rank with them, where it shows a training loop; else unchanged.

Allocations in the order of time fall into runs: forward (a module is called), backward (autograd's engine, or no stack
at all where others have one: its threads have no Python), optimizer (`Optimizer.step#…` or frames of a step). What is
in between belongs to the run before it, save that an optimizer run ends with its step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memtrace.analysis.stack_roles import ENGINE, MODULE, PYTHON, STEP, roles_of, stack_roles
from memtrace.schema.names import Action, Phase, Source
from memtrace.schema.tables import Table
from memtrace.store.columns import NULL, ColumnTable, IntArray, dtype_of
from memtrace.store.trace import RankTrace

_OTHER, _FORWARD, _BACKWARD, _OPTIMIZER = 0, 1, 2, 3
_NAMES = {_FORWARD: Phase.FORWARD, _BACKWARD: Phase.BACKWARD, _OPTIMIZER: Phase.OPTIMIZER}


@dataclass(frozen=True, slots=True)
class _Run:
    kind: int
    start_ns: int
    end_ns: int


def with_inferred_marks(rank: RankTrace) -> RankTrace:
    """Return a snapshot's rank with inferred steps and phases; any other rank as it is."""
    if rank.source != Source.SNAPSHOT.value or len(rank.table("steps")) or len(rank.table("phases")):
        return rank
    runs = _runs(rank)
    if not any(run.kind == _BACKWARD for run in runs):
        # Forwards alone may be inference: they make no step.
        return rank
    phases, steps = _rows(runs, int(rank.table("events")["time_ns"].min()))
    return _with_rows(rank, {"phases": phases, "steps": steps})


def _runs(rank: RankTrace) -> list[_Run]:
    """Return the runs of forward, backward and optimizer, in order."""
    events = rank.table("events")
    rows = np.flatnonzero(events["action"] == rank.string_id(Action.ALLOC.value))
    times = events["time_ns"][rows]
    if not len(rows) or np.any(times == NULL):
        return []
    spans = _optimizer_spans(rank, int(times[-1]))
    kinds = _kinds(rank, events["stack"][rows], times, spans)
    marked = np.flatnonzero(kinds)
    if not len(marked):
        return []
    firsts = marked[np.flatnonzero(np.diff(kinds[marked], prepend=_OTHER))]
    lasts = marked[np.flatnonzero(np.diff(kinds[marked], append=_OTHER))]
    after = int(events["time_ns"].max()) + 1
    runs = []
    for at, (first, last) in enumerate(zip(firsts.tolist(), lasts.tolist(), strict=True)):
        kind, start = int(kinds[first]), int(times[first])
        end = after if at + 1 == len(firsts) else int(times[firsts[at + 1]])
        if kind == _OPTIMIZER:
            inside = [stop for begin, stop in spans if begin <= times[last] <= stop]
            end = min(end, max([*inside, int(times[last]) + 1]))
        runs.append(_Run(kind, start, end))
    return runs


def _optimizer_spans(rank: RankTrace, last_ns: int) -> list[tuple[int, int]]:
    """Return the stretches of time that torch annotated as optimizer steps."""
    table = rank.table("annotations")
    return [
        (int(start), last_ns if end == NULL else int(end))
        for name, start, end in zip(table["name"], table["start_ns"], table["end_ns"], strict=True)
        if start != NULL and (rank.text(int(name)) or "").startswith("Optimizer.step#")
    ]


def _kinds(rank: RankTrace, stack: IntArray, times: IntArray, spans: Sequence[tuple[int, int]]) -> IntArray:
    """Return what each alloc's stack and time say about its phase."""
    roles = roles_of(stack_roles(rank), stack)
    kinds = np.full(len(stack), _OTHER, np.int64)
    kinds[(roles & MODULE) > 0] = _FORWARD
    kinds[(roles & STEP) > 0] = _OPTIMIZER
    kinds[(roles & ENGINE) > 0] = _BACKWARD
    if ((roles & PYTHON) > 0).any():
        # A lone alloc without a stack proves nothing: autograd makes many.
        frameless = stack == NULL
        if np.count_nonzero(frameless) > 1:
            kinds[frameless] = _BACKWARD
    for start, end in spans:
        kinds[np.searchsorted(times, start) : np.searchsorted(times, end, side="right")] = _OPTIMIZER
    return kinds


def _rows(runs: Sequence[_Run], first_ns: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows of phases and steps: a step ends with the last optimizer run before the next forward."""
    phases: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    starts, step, backwards = runs[0].start_ns, 1, 0
    if first_ns < starts:
        steps.append({"step": 0, "start_ns": first_ns, "end_ns": starts, "recorded": True})
    for at, run in enumerate(runs):
        phase = {"phase": _NAMES[run.kind].value, "step": step, "start_ns": run.start_ns, "end_ns": run.end_ns}
        phases.append({**phase, "microbatch": max(backwards - (run.kind != _FORWARD), 0)})
        backwards += run.kind == _BACKWARD
        if run.kind == _OPTIMIZER and (at + 1 == len(runs) or runs[at + 1].kind != _OPTIMIZER):
            row = {"step": step, "start_ns": starts, "end_ns": run.end_ns, "recorded": True}
            steps.append({**row, "num_microbatches": backwards})
            starts, step, backwards = run.end_ns, step + 1, 0
    if runs[-1].kind != _OPTIMIZER:
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
