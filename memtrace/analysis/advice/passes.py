"""The first forward and backward of each step, as stretches of moments.

In: a `Case` with phases. Out: `Pass`es in the order of steps. Of a step with several micro-batches it is the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.schema.names import Phase
from memtrace.store.columns import NULL


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The first micro-batch of one step; moments are the first of, and the first after."""

    step: int
    after_step: int
    """First moment after the optimizer step before it; that of its forward in the first step of all."""
    forward: int
    backward: int
    end: int


def first_passes(case: Case) -> list[Pass]:
    """Return the first micro-batch of each step that has a forward and a backward."""
    rank, moments = case.history.rank, case.history.moments
    phases, steps = rank.table("phases"), rank.table("steps")
    if not moments.has_times:
        return []
    step_start = dict(zip(steps["step"].tolist(), steps["start_ns"].tolist(), strict=True))
    found: list[Pass] = []
    forward_ns: dict[int, int] = {}
    seen: set[int] = set()
    forward, backward = rank.string_id(Phase.FORWARD.value), rank.string_id(Phase.BACKWARD.value)
    columns = (phases[name].tolist() for name in ("phase", "step", "start_ns", "end_ns"))
    for phase, step, start_ns, end_ns in zip(*columns, strict=True):
        if phase == forward:
            forward_ns.setdefault(step, start_ns)
        elif phase == backward and step in forward_ns and step not in seen:
            seen.add(step)
            start_of_step = step_start.get(step, forward_ns[step]) if step > 1 else forward_ns[step]
            # A phase begins and ends between events: its first moment is the one after the last event before it.
            times = (start_of_step, forward_ns[step], start_ns, np.iinfo(np.int64).max if end_ns == NULL else end_ns)
            at = moments.at_times(np.array(times, np.int64)) + 1
            found.append(
                Pass(step=step, after_step=int(at[0]), forward=int(at[1]), backward=int(at[2]), end=int(at[3]))
            )
    return found
