"""The micro-batches of a run, each with its forward and backward, as stretches of moments.

In: a `Case` with phases. Out: `Pass`es in the order of time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.schema.names import Phase
from memtrace.store.columns import NULL


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One micro-batch; moments are the first of, and the first after."""

    step: int
    is_first: bool
    """Whether it is the first of its step."""
    after_step: int
    """First moment after the optimizer step before it; that of its forward in the first step of all."""
    forward: int
    backward: int
    end: int


def all_passes(case: Case) -> list[Pass]:
    """Return the micro-batches that have a forward and a backward; of several forwards the first one counts."""
    rank, moments = case.history.rank, case.history.moments
    phases, steps = rank.table("phases"), rank.table("steps")
    if not moments.has_times:
        return []
    step_start = dict(zip(steps["step"].tolist(), steps["start_ns"].tolist(), strict=True))
    found: list[Pass] = []
    forward_ns: dict[tuple[int, int], int] = {}
    done: set[tuple[int, int]] = set()
    forward, backward = rank.string_id(Phase.FORWARD.value), rank.string_id(Phase.BACKWARD.value)
    columns = (phases[name].tolist() for name in ("phase", "step", "microbatch", "start_ns", "end_ns"))
    for phase, step, microbatch, start_ns, end_ns in zip(*columns, strict=True):
        key = (step, microbatch)
        if phase == forward:
            forward_ns.setdefault(key, start_ns)
        elif phase == backward and key in forward_ns and key not in done:
            done.add(key)
            start_of_step = step_start.get(step, forward_ns[key]) if step > 1 else forward_ns[key]
            # A phase begins and ends between events: its first moment is the one after the last event before it.
            times = (start_of_step, forward_ns[key], start_ns, np.iinfo(np.int64).max if end_ns == NULL else end_ns)
            after_step, first, middle, end = (moments.at_times(np.array(times, np.int64)) + 1).tolist()
            is_first = not found or found[-1].step != step
            found.append(
                Pass(step=step, is_first=is_first, after_step=after_step, forward=first, backward=middle, end=end)
            )
    return found


def first_passes(case: Case) -> list[Pass]:
    """Return the first micro-batch of each step."""
    return [one for one in all_passes(case) if one.is_first]
