"""Tables of a run for pandas: every allocation with all that is known of it, or any table of the trace.

In: `Trace`, or the `Report` of one. Out: one frame for all ranks. Bytes are ints, times Unix ns; what is not known is
missing (`<NA>`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from memtrace.analysis.results.report import AllocationMap, IntArray, RankReport, Report
from memtrace.errors import MemtraceError
from memtrace.schema.tables import TABLES
from memtrace.store.trace import Trace

ALLOCATIONS = "allocations"
"""The table of allocations, which is worked out; the others stand in the trace."""

NAMES = (ALLOCATIONS, *(table.name for table in TABLES))
"""Tables by name."""


def allocations_frame(report: Report) -> pd.DataFrame:
    """Return every allocation of a report that was made with them, a column `rank` in front."""
    return _stacked([_allocations(rank, rank.allocation_map) for rank in report.ranks if rank.allocation_map])


def table_frame(trace: Trace, name: str) -> pd.DataFrame:
    """Return one table of a trace, a column `rank` in front.

    Raises:
        MemtraceError: there is no table of this name.
    """
    if name not in NAMES:
        raise MemtraceError(f"there is no table {name}", hint=f"the tables are {', '.join(NAMES)}")
    frames = []
    for rank in trace.ranks:
        frame = rank.table(name).frame(rank.strings)
        number = pd.DataFrame({"rank": pd.array([rank.rank] * len(frame), "Int64")})
        frames.append(pd.concat([number, frame], axis=1))
    return _stacked(frames)


def _stacked(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the frames one after another; without any, one without rows."""
    stacked: pd.DataFrame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["rank"])
    return stacked


def _allocations(report: RankReport, found: AllocationMap) -> pd.DataFrame:
    """Return the allocations of one rank and device, in the order in which they began."""
    length = len(found.start)
    ends = np.where(found.in_use_end < found.num_moments, found.in_use_end, -1)
    frame: pd.DataFrame = pd.DataFrame(
        {
            "rank": pd.array([report.rank] * length, "Int64"),
            "device": pd.Categorical([report.device] * length),
            "address": found.address,
            "size_bytes": found.size_bytes,
            "block_bytes": _optional(found.block_bytes, length),
            "category": _texts(found.categories, found.category),
            "decision": _texts(found.decisions, found.decision),
            "owner": _texts([owner[0] for owner in found.owners], found.owner),
            "owner_dtype": _texts([owner[1] for owner in found.owners], found.owner),
            "owner_shape": _texts([owner[2] for owner in found.owners], found.owner),
            "saved_by": _texts([saved[0] for saved in found.saved_for], found.saved),
            "saved_dtype": _texts([saved[1] for saved in found.saved_for], found.saved),
            "saved_shape": _texts([saved[2] for saved in found.saved_for], found.saved),
            "module": _texts(found.modules, found.module),
            "step": _integers(found.step, found.step >= 0),
            "is_initial": found.is_initial,
            "start_event": _integers(found.event[found.start], ~found.is_initial),
            "end_event": _integers(found.event[ends], ends >= 0),
            "start_ns": _times(found, found.start, ~found.is_initial),
            "end_ns": _times(found, ends, ends >= 0),
            "stack": _texts(_stack_texts(found), found.stack),
        }
    )
    return frame


def _optional(values: IntArray | None, length: int) -> Any:
    return pd.array([pd.NA] * length, "Int64") if values is None else pd.array(values, "Int64")


def _integers(values: IntArray, known: Any) -> Any:
    return pd.arrays.IntegerArray(values.astype(np.int64), ~np.asarray(known, np.bool_))


def _times(found: AllocationMap, moments: IntArray, known: Any) -> Any:
    if found.time_ns is None:
        return _optional(None, len(moments))
    return _integers(found.time_ns[moments], known)


def _texts(names: Sequence[str | None], code: Any) -> Any:
    """Return the names that codes stand for; -1, and a name that is not known, are missing."""
    distinct = list(dict.fromkeys(name for name in names if name is not None))
    place = {name: at for at, name in enumerate(distinct)}
    categories: Any = pd.Index(distinct, dtype=object)
    # The last place is that of code -1.
    of_name = np.array([*(-1 if name is None else place[name] for name in names), -1], np.int64)
    return pd.Categorical.from_codes(of_name[code].tolist(), categories=categories)


def _stack_texts(found: AllocationMap) -> list[str]:
    """Return each stack as one text, the innermost frame first."""
    texts: list[str] = []
    # A calling stack is an earlier row.
    for frame, parent in zip(found.stack_frame.tolist(), found.stack_parent.tolist(), strict=True):
        own = found.frames[frame]
        texts.append(own if parent < 0 else f"{own} < {texts[parent]}")
    return texts
