"""What steps make that is kept for several steps and then freed at once: results of an epoch, reference cycles.

In: `Case` with steps. Out: a `Finding`. At step ends the level is a saw-tooth:

    step      1   2   3   4   5   6   7   8
    kept      o   oo  ooo …       o   oo  ooo

Where every step was recorded the fall is seen; over a gap, it shows in the total, which grew by less than the steps
before and after the gap say. What is kept on purpose for a while is as common as what is not: it is told only where it
is most of what the program has at the peak, which workspaces of libraries are no part of.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.advice.case import WORTH_SAYING_SHARE, Case
from memtrace.analysis.device.steps import StepSpan
from memtrace.analysis.diagnosis.freed_at_step_end import freed_at_step_ends
from memtrace.analysis.diagnosis.growth import Growing, Growth, blind_phases, find_growing, growth_of, is_blind
from memtrace.analysis.results.report import Finding
from memtrace.analysis.sentences.keepers import change_of, kept_by
from memtrace.schema.names import Category
from memtrace.store.columns import IntArray
from memtrace.units import format_bytes

_LEAST_GENERATIONS = 3
"""Steps whose things are freed together: a double buffer frees one step's at a time."""
_MOST_OF_THE_PEAK = 0.5


def kept_for_steps(case: Case) -> Finding | None:
    """Return what is wrong where most of the peak was made by steps before, and is freed every few steps."""
    growth = growth_of(case.history)
    if growth is None:
        return None
    places, rate = _dropped_at_once(growth)
    if not places:
        places, rate = _dropped_in_a_gap(case, find_growing(case.history))
    if not places:
        return None
    cuts = freed_at_step_ends(case, growth, places, rate) if _are_all_seen(case, growth, places) else ()
    kept = case.level - case.level_without(*cuts) if cuts else _kept(case, growth.spans, rate)
    peak_without = case.peak_with(*cuts) if cuts else int((case.level - kept).max())
    saves = case.peak_bytes - peak_without
    rows = growth.places.rows[np.isin(growth.places.of_row, places)]
    found = case.kept
    keeper = None if found is None else found.keeper_of(rows)
    # Nobody makes a cycle on purpose.
    is_cycle = keeper is not None and keeper.kind == "cycle"
    workspaces = case.at_peak(case.cut(np.flatnonzero(case.is_category(Category.WORKSPACE))))
    is_most = saves >= _MOST_OF_THE_PEAK * (case.peak_bytes - workspaces)
    if not is_most and not (is_cycle and saves >= WORTH_SAYING_SHARE * case.peak_bytes):
        return None
    made = case.line_above(rows)
    return Finding(
        slug="kept-for-steps",
        severity="warning",
        title=f"What steps make is kept for several steps and then freed at once: up to {format_bytes(int(kept.max()))}"
        f" of steps before{'' if keeper is None else f', kept by {keeper.text}'}",
        evidence={
            "kept_at_most_bytes": int(kept.max()),
            "growth_per_step_bytes": rate,
            **kept_by(keeper),
            **({} if cuts else {"extrapolated_at_peak_bytes": int(kept[case.peak_moment])}),
        },
        change=change_of(keeper)
        if keeper is not None
        else "If a list collects it, keep numbers and not tensors (loss.item(), sums), or move it to the CPU in each "
        "step. If nothing of yours holds it, it refers to itself, and only the garbage collector frees it: break the "
        "cycle (a closure or an attribute that leads back), or drop the reference when the step is over.",
        cost="None, or a copy to the CPU in each step.",
        saves_bytes=saves,
        saves_ns=None,
        new_peak_bytes=peak_without,
        rank=case.history.rank.rank,
        where=made or (None if keeper is None else keeper.fed_at),
    )


def _are_all_seen(case: Case, growth: Growth, places: list[int]) -> bool:
    """Return whether every allocation that some places made is known to be theirs."""
    if len(case.history.moments.epochs) > 1:
        return False
    blind = blind_phases(case.history, growth)
    return not any(is_blind(growth, blind, place, at) for place in places for at in range(len(growth.spans)))


def _dropped_at_once(growth: Growth) -> tuple[list[int], int]:
    """Return the places that lose at a step's end what several steps made there, and what they gain a step."""
    values = growth.num_bytes[:, list(growth.judged)]
    found, rate = [], 0
    for place in np.flatnonzero((values > 0).any(axis=1) & (values < 0).any(axis=1)).tolist():
        gains = values[place][values[place] > 0]
        gain = int(np.median(gains))
        # The step in which they fall makes its own as well.
        if len(gains) >= _LEAST_GENERATIONS and -int(values[place].min()) >= (_LEAST_GENERATIONS - 1) * gain:
            found.append(place)
            rate += gain
    return found, rate


def _dropped_in_a_gap(case: Case, growing: Growing | None) -> tuple[list[int], int]:
    """Return the places that grow before a gap and after it, where the total did not over the gap."""
    if growing is None or growing.goes_on:
        return [], 0
    rate, spans = sum(map(growing.rate, growing.judged)), growing.growth.spans
    last = growing.growth.judged[-1]
    level = case.history.levels.requested
    grown = int(level[spans[last].last] - level[spans[last - 1].last])
    # A cache that is full by now does not grow any more.
    return (list(growing.judged), rate) if 2 * grown >= rate and last == len(spans) - 1 else ([], 0)


def _kept(case: Case, spans: tuple[StepSpan, ...], rate: int) -> IntArray:
    """Return for each moment what is there of steps before: what the level is above its lowest at the end of a step.

    What the step itself makes does not count, so it is the lowest level since the step began; nor is it ever taken for
    more than so many steps could have made.
    """
    level, starts = case.history.levels.requested, case.history.moments.epoch_starts()
    ended = [span for span in spans if span.step >= 1]
    lowest = min(int(level[span.last]) for span in ended)
    kept = np.zeros(len(level), np.int64)
    for before, after in zip(ended, [*ended[1:], None], strict=True):
        last, steps = (len(level) - 1, before.step) if after is None else (after.last, after.step - 1)
        begin = int(max(before.last + 1, starts[starts <= last].max(initial=0)))
        above = np.minimum.accumulate(level[begin : last + 1]) - lowest
        kept[begin : last + 1] = np.clip(above, 0, rate * (steps - ended[0].step + 1))
    return kept
