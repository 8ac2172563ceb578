"""The micro-batches of a run, each with its forward and backward, as stretches of moments.

In: a `Case` with phases. Out: `Pass`es, and all `Backwards`, in the order of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memtrace.analysis.advice.case import BoolArray, Case
from memtrace.schema.names import Phase
from memtrace.store.columns import NULL, IntArray


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


class Backwards(NamedTuple):
    """The backwards of a recording, in the order of time."""

    begin_ns: IntArray
    begin: IntArray
    """First moment of each: a phase begins between events, so it is that after the last event before it."""
    end: IntArray
    """Last moment; of one that did not end, the last of all."""
    are_nested: bool
    """Whether any is inside another."""

    def are_around(self, moments: IntArray) -> BoolArray:
        """Return whether each moment lies in a backward."""
        last_begun = np.searchsorted(self.begin, moments, side="right") - 1
        return np.asarray(moments <= np.append(self.end, -1)[last_begun])


def all_backwards(case: Case) -> Backwards:
    """Return every backward, of micro-batches or not."""
    rank, moments = case.history.rank, case.history.moments
    phases = rank.table("phases")
    rows = np.flatnonzero(phases["phase"] == rank.string_id(Phase.BACKWARD.value))
    rows = rows[np.argsort(phases["start_ns"][rows], kind="stable")]
    begin_ns, end_ns = (phases[name][rows] for name in ("start_ns", "end_ns"))
    end = np.where(end_ns == NULL, len(moments), moments.at_times(end_ns))
    ends_ns = np.where(end_ns == NULL, np.iinfo(np.int64).max, end_ns)
    are_nested = bool(np.any(np.maximum.accumulate(ends_ns)[:-1] > begin_ns[1:]))
    return Backwards(begin_ns=begin_ns, begin=moments.at_times(begin_ns) + 1, end=end, are_nested=are_nested)
