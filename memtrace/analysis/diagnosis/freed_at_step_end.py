"""What grows, freed at the end of the step that made it: the bytes that would not be there, as far as they are seen.

In: a `Case`, what grows, and at which rate. Out: `Cut`s of the allocations of the recording, and of what piled up where
nothing was recorded.

    step            1     2     3   …   19    20
    recorded        o     oo    ooo     …ooo  …oooo
    freed                 -o    -oo     …-oo  …-ooo
                                        before step 19: so many steps, at the rate of those that were recorded
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np

from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.diagnosis.grown_bytes import ended_steps, piled_up
from memtrace.analysis.diagnosis.growth import Growth, blind_phases, is_blind
from memtrace.analysis.diagnosis.leaks import Pile


def freed_at_step_ends(case: Case, growth: Growth, places: Collection[int], rate: int) -> tuple[Cut, ...]:
    """Return the cuts of what some places made that outlives its step, at which rate a step they grow.

    Of what is put together anew, with more in each step, only what is new is there until its step ends.
    """
    chosen, born = growth.rows_of(case.history, places)
    rows = growth.places.rows[chosen]
    step_end = np.array([span.last for span in growth.spans], np.int64)[born] + 1
    sizes = case.lifetimes.size_bytes[rows]
    old = np.where(growth.is_replaced[growth.places.of_row[chosen]], np.maximum(sizes - rate, 0), 0)
    return case.cut(rows, sizes - old, start=step_end), case.cut(rows, old)


def not_seen(case: Case, pile: Pile) -> Cut:
    """Return the cut of what had piled up before each stretch of the recording but the first, in steps without one, and
    of what steps made whose lines were not recorded."""
    history, leak, growing = case.history, pile.leak, pile.growing
    ended = ended_steps(history)
    blind = blind_phases(history, growing.growth)
    position = {span.step: at for at, span in enumerate(growing.growth.spans)}
    starts = history.moments.epoch_starts()
    stretches: list[tuple[int, int, int]] = []
    for begin, end in itertools.pairwise([*starts.tolist(), len(case.level)]):
        own = [span for span in ended if begin <= span.last < end]
        if own and own[0] is not ended[0]:
            num_steps = own[0].step - 1 - ended[0].step
            before = leak.first_bytes + piled_up(history, ended[0], begin, num_steps, leak.bytes_per_step)
            stretches.append((begin, end, before))
        for before_it, span in zip([None, *own], own, strict=False):
            at = position.get(span.step)
            rate = sum(
                growing.rate(one) for one in pile.places if at is not None and is_blind(growing.growth, blind, one, at)
            )
            if rate and before_it is not None:
                stretches.append((span.last + 1, end, piled_up(history, before_it, span.last, 1, rate)))
            elif rate:
                stretches.append((span.last + 1, end, rate))
    start, stop, sizes = np.array(stretches, np.int64).reshape(-1, 3).T
    return Cut(start=start, end=stop, size_bytes=sizes, rows=None)


def extrapolated(case: Case, unseen: Cut) -> dict[str, int]:
    """Return as evidence how much of what is taken off the peak was seen in no recording."""
    num_bytes = case.at_peak(unseen)
    return {"extrapolated_at_peak_bytes": num_bytes} if num_bytes else {}
