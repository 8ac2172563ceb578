"""Advice with a number from this very trace: what is wrong first, then what could be traded, each by bytes saved.

In: histories of devices. Out: `Finding`s. Each tells what makes the peak, what to change, what that costs, and what the
peak would then be; the kinds of advice are in `analysis.advice`, one a file. Advice that would take less than a
fiftieth off the peak is not given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence

from memtrace.analysis.advice.allocator import expandable_segments
from memtrace.analysis.advice.batch import smaller_micro_batch
from memtrace.analysis.advice.case import Case
from memtrace.analysis.advice.frozen import frozen_in_float
from memtrace.analysis.advice.gradients import gradients_through_forward, returned_gradients_through_forward
from memtrace.analysis.advice.kept import kept_past_its_step
from memtrace.analysis.advice.logits import logits_in_chunks
from memtrace.analysis.advice.optimizer import eight_bit_state, lists_of_temporaries
from memtrace.analysis.advice.outputs import outputs_of_the_pass_before
from memtrace.analysis.advice.precision import lower_precision
from memtrace.analysis.advice.recomputation import full_recomputation, selective_recomputation
from memtrace.analysis.advice.replayed import checked
from memtrace.analysis.advice.sharding import sharded_state
from memtrace.analysis.advice.unused_graph import unused_graph
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.peak import EXACT
from memtrace.analysis.results.report import Finding
from memtrace.schema.findings import SEVERITIES
from memtrace.schema.names import Category

ADVICE: tuple[Callable[[Case], Finding | None], ...] = (
    logits_in_chunks,
    lists_of_temporaries,
    gradients_through_forward,
    returned_gradients_through_forward,
    outputs_of_the_pass_before,
    unused_graph,
    kept_past_its_step,
    expandable_segments,
    smaller_micro_batch,
    selective_recomputation,
    full_recomputation,
    lower_precision,
    frozen_in_float,
    eight_bit_state,
    sharded_state,
)


OF_RESERVED = frozenset({"expandable-segments", "fragmentation"})
"""Findings whose bytes are reserved ones."""


def find_advice(history: DeviceHistory) -> tuple[Finding, ...]:
    """Return what would help one device, what is wrong before what could be traded, the largest saving first."""
    if not history.has_history:
        return ()
    case = Case(history)
    found = checked(case, (finding for rule in ADVICE if (finding := rule(case)) is not None))
    return in_order(map(_said_to_be_inferred, found) if _is_inferred(case) else found)


def _is_inferred(case: Case) -> bool:
    """Return whether of what is known of the peak, most was inferred."""
    at_peak = {kind: int(level[case.peak_moment]) for kind, level in case.history.levels.by_kind.items()}
    exact = sum(num_bytes for (_, decision), num_bytes in at_peak.items() if decision in EXACT)
    known = sum(num_bytes for (category, _), num_bytes in at_peak.items() if category is not Category.UNKNOWN)
    return 2 * exact < known


def _said_to_be_inferred(finding: Finding) -> Finding:
    return dataclasses.replace(finding, evidence={**finding.evidence, "rests_on_inference": True})


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings by severity, what costs nothing before what does, then by bytes saved, then by time saved."""

    def rank(one: Finding) -> tuple[int, bool, int, int]:
        costs = one.severity == "info" and not one.cost.startswith("None")
        return SEVERITIES.index(one.severity), costs, -(one.saves_bytes or 0), -(one.saves_ns or 0)

    return tuple(sorted(findings, key=rank))


def behind_faults(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings in which fragmentation is no cause where something else that is wrong holds more bytes.

    Near a full device some of what is reserved always lies idle in pieces, and the request that failed would have found
    room there. What a fault of the program holds would have been enough, too, and will be at the next request.
    """
    return tuple(
        dataclasses.replace(one, severity="warning")
        if one.slug == "fragmentation"
        and one.severity == "error"
        and main_fault(findings, one.rank, above=one.saves_bytes or 0) is not None
        else one
        for one in findings
    )


def main_fault(findings: Iterable[Finding], rank: int | None, *, above: int) -> Finding | None:
    """Return what is wrong with the program of a rank and holds most, of what holds more bytes than so many."""
    own = [one for one in findings if one.rank == rank and one.severity != "info" and one.slug not in OF_RESERVED]
    faults = [one for one in own if (one.saves_bytes or 0) > above]
    return max(faults, key=lambda one: one.saves_bytes or 0, default=None)


def failing(findings: Iterable[Finding], conditions: Collection[str]) -> tuple[Finding, ...]:
    """Return the findings that meet any of some conditions: a slug, or a severity, which means it and what is worse."""
    worst = [SEVERITIES.index(one) for one in conditions if one in SEVERITIES]
    severities = SEVERITIES[: max(worst, default=-1) + 1]
    return tuple(one for one in findings if one.slug in conditions or one.severity in severities)
