"""When the program evaluated: from a forward that trains nothing to the next thing that does.

In: the phases of a rank. Out: stretches of time. What lies between two forwards of an evaluation belongs to it, data
that is drawn for them too, and so does what no phase covers after the last: outputs that are put together, metrics.

    optimizer   evaluation   data   evaluation         data   forward
                └──────────── a stretch ──────────────┘
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.events.innermost import Spans
from memtrace.schema.names import Phase
from memtrace.store.columns import IntArray
from memtrace.store.trace import RankTrace

NEVER = int(np.iinfo(np.int64).max)
"""The end of a stretch after which nothing comes."""


def evaluation_stretches(rank: RankTrace, phases: Spans) -> IntArray:
    """Return start and end of each stretch, Unix ns, a row each, in order of time."""
    names = rank.table("phases")["phase"]
    evaluation, data = (rank.string_id(one.value) for one in (Phase.EVALUATION, Phase.DATA))
    found: list[tuple[int, int]] = []
    start_ns: int | None = None
    end_ns = NEVER
    for position in np.flatnonzero(phases.parent < 0).tolist():
        name, begins_ns = int(names[phases.rows[position]]), int(phases.start_ns[position])
        if name == evaluation:
            start_ns, end_ns = begins_ns if start_ns is None else start_ns, NEVER
        elif start_ns is not None:
            end_ns = min(end_ns, begins_ns)
            if name != data:
                found.append((start_ns, end_ns))
                start_ns = None
    if start_ns is not None:
        found.append((start_ns, end_ns))
    return np.array(found, np.int64).reshape(-1, 2)
