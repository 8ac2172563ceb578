"""A recording as it would be had the run broken off earlier.

In: a rank and a Unix time. Out: the rank without what was recorded later; what was open then has no end.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

import numpy as np

from memtrace.analysis.first_step.first_loop import ZERO_GRAD
from memtrace.schema.tables import BLOCKS, SEGMENTS
from memtrace.store.columns import NULL, Array, BoolArray, ColumnTable
from memtrace.store.trace import RankTrace

_SPANS = ("steps", "phases", "scopes", "annotations")


class Cut(Enum):
    """Where a recording is cut, earliest last."""

    NEXT_FORWARD = "at the forward of step 2"
    """Where a run dies whose first step went well."""
    STEP = "at the end of step 1"
    """Nothing is known of what follows the optimizer's step."""
    BACKWARD = "after the first backward"
    """When the phase after it begins: the optimizer's step, or the forward of the next microbatch."""


def cut_rank(rank: RankTrace, time_ns: int) -> RankTrace:
    """Return the rank as far as it was recorded at a time, without the allocator's state at its end."""
    tables = {**rank.tables, "segments": ColumnTable.empty(SEGMENTS), "blocks": ColumnTable.empty(BLOCKS)}
    events, windows = rank.table("events"), rank.table("windows")
    tables["events"] = _rows(events, events["time_ns"] <= time_ns)
    begun = np.asarray(windows["start_ns"] <= time_ns)
    tables["windows"] = _rows(
        windows,
        begun,
        num_events=np.clip(len(tables["events"]) - windows["first_event"], 0, windows["num_events"]),
        end_ns=np.minimum(windows["end_ns"], time_ns),
    )
    blocks = rank.table("initial_blocks")
    tables["initial_blocks"] = _rows(blocks, begun[blocks["window"]])
    for name in _SPANS:
        table = rank.table(name)
        ends = np.where(table["end_ns"] > time_ns, NULL, table["end_ns"])
        tables[name] = _rows(table, table["start_ns"] <= time_ns, end_ns=ends)
    for name in ("owners", "saved"):
        table = rank.table(name)
        tables[name] = _rows(table, table["time_ns"] <= time_ns)
    return dataclasses.replace(rank, header=_header(rank, tables["annotations"]), tables=tables)


def _rows(table: ColumnTable, chosen: BoolArray, **changed: Array) -> ColumnTable:
    return ColumnTable(table.table, {name: changed.get(name, one)[chosen] for name, one in table.columns.items()})


def _header(rank: RankTrace, annotations: ColumnTable) -> dict[str, Any]:
    """Return the header without the fact that gradients are kept, if no `zero_grad` had run by then."""
    seen = any((rank.text(int(name)) or "").startswith(ZERO_GRAD) for name in annotations["name"])
    return {name: value for name, value in rank.header.items() if seen or name != "keeps_gradients"}


def time_of(rank: RankTrace, cut: Cut) -> int:
    """Return the Unix time of a cut in a rank whose steps and phases are marked."""
    phases, steps, owners = rank.table("phases"), rank.table("steps"), rank.table("owners")
    forward, backward, optimizer = (phases["phase"] == rank.string_id(name) for name in _TRAINING)
    start = phases["start_ns"]
    if cut is Cut.NEXT_FORWARD:
        return int(start[forward & (phases["step"] == 2)].min())
    if cut is Cut.STEP:
        end_ns = int(steps["end_ns"][steps["step"] == 1][0])
        # The sweep of owners belongs to the end of its step, though it comes a moment later.
        swept = owners["time_ns"][owners["step"] == 1]
        return max(end_ns, int(swept.max(initial=end_ns)))
    ended = int(phases["end_ns"][backward & (phases["step"] == 1)].min())
    return int(start[(forward | optimizer) & (start >= ended)].min())


_TRAINING = ("forward", "backward", "optimizer")
