"""A predicted run as it would have ended on a GPU that is too small: at the request that fails.

In: a rank whose events end with an out-of-memory, and whose marks go on as if there were none. Out: the rank as a
recording would have left it, so that a report says where the run dies and of what.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memtrace.store.columns import NULL, Array, ColumnTable
from memtrace.store.trace import RankTrace

_SEEN_LATER = "owners"
"""Table of what was seen at the end of a step; what is in it then was there before, if it was allocated."""
_KEPT_WHOLE = frozenset({"events", "kernels"})


def broken_off(rank: RankTrace, time_ns: int) -> RankTrace:
    """Return the rank without what happens after the time of the failure: marks end there, open ones have no end."""
    tables = {name: table if name in _KEPT_WHOLE else _cut(table, time_ns) for name, table in rank.tables.items()}
    tables[_SEEN_LATER] = _owned_at(rank, time_ns)
    initial, windows = tables["initial_blocks"], tables["windows"]
    known = initial["window"] < len(windows)
    tables["initial_blocks"] = ColumnTable(initial.table, {name: one[known] for name, one in initial.columns.items()})
    return replace(rank, tables=tables, header={**rank.header, "end_ns": time_ns})


def _cut(table: ColumnTable, time_ns: int) -> ColumnTable:
    """Return the rows of what had begun by a time, without the ends that came later."""
    columns = table.columns
    begun = columns.get("start_ns", columns.get("time_ns"))
    if begun is None:
        return table
    kept = begun <= time_ns
    found: dict[str, Array] = {name: column[kept] for name, column in columns.items()}
    if "end_ns" in found:
        found["end_ns"] = np.where(found["end_ns"] > time_ns, NULL, found["end_ns"])
    return ColumnTable(table.table, found)


def _owned_at(rank: RankTrace, time_ns: int) -> ColumnTable:
    """Return what was seen to be owned before a time, and what the failing step allocated before and owns at its end.

    A recording sees that too: it looks once more when a request fails. What the model never placed is not in the table.
    """
    owners, steps = rank.table("owners"), rank.table("steps")
    failing = steps["step"][(steps["start_ns"] <= time_ns)][-1:]
    kept = (owners["time_ns"] <= time_ns) | np.isin(owners["step"], failing)
    columns: dict[str, Array] = {name: column[kept] for name, column in owners.columns.items()}
    columns["time_ns"] = np.minimum(columns["time_ns"], time_ns)
    return ColumnTable(owners.table, columns)
