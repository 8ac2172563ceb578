"""The card of a report, put together: what happened, what the peak is made of, what limits, what to change.

In: `Report`. Out: `Card`. Nothing is measured here: every figure is one of the report's.
"""

from __future__ import annotations

from memtrace.analysis.card.changes import changes_of
from memtrace.analysis.card.limits import limits_of
from memtrace.analysis.card.unseen import not_seen
from memtrace.analysis.results.card import Card, CardPart, Death
from memtrace.analysis.results.report import Peak, RankReport, Report
from memtrace.analysis.sentences.death import death_of, was_caught
from memtrace.analysis.sentences.peak_moment import when_of_peak
from memtrace.analysis.sentences.unrecorded_steps import higher_step, of_recorded
from memtrace.analysis.sentences.verdict import main_rank, peak_bytes
from memtrace.analysis.sentences.words import when_and_where
from memtrace.schema.names import Source
from memtrace.units import format_bytes


def card_of(report: Report, *, capacity_bytes: int | None = None) -> Card:
    """Return the card of a report; `capacity_bytes` stands in for the memory of the device."""
    chosen = main_rank(report.ranks)
    rank = None if chosen is None else report.ranks[chosen]
    death = death_of(report.ranks, report.warnings)
    if rank is None:
        return _without_memory(report, death)
    peak = rank.peak
    capacity = rank.capacity_bytes if capacity_bytes is None else capacity_bytes
    changes, num_more = changes_of(rank, report.findings, capacity)
    return Card(
        outcome=_outcome(rank, death),
        headline=_headline(rank, death),
        death=death,
        rank=rank.rank if len({one.rank for one in report.ranks}) > 1 else None,
        device=rank.device,
        peak_bytes=peak_bytes(peak),
        basis="requested" if peak.allocated_bytes is None else "allocated",
        step=peak.step,
        phase=peak.phase,
        module=peak.module,
        parts=_parts(peak),
        requested_bytes=peak.requested_bytes,
        reserved_bytes=rank.max_reserved_bytes,
        outside_bytes=peak.non_torch_bytes if rank.oom is None else rank.oom.non_torch_bytes,
        failed_request_bytes=None if rank.oom is None else rank.oom.request_bytes,
        capacity_bytes=capacity,
        limits=limits_of(rank, report.findings),
        changes=changes,
        num_more_changes=num_more,
        not_seen=not_seen(rank, report),
        next_command=report.next_commands[0] if report.next_commands else None,
    )


def _without_memory(report: Report, death: Death | None) -> Card:
    """Return the card of a run of whose memory nothing is known."""
    return Card(
        outcome="unknown" if death is None else "died",
        headline="No memory was recorded." if death is None else death.sentence,
        death=death,
        rank=None,
        device=None,
        peak_bytes=None,
        basis="requested",
        step=None,
        phase=None,
        module=None,
        parts=(),
        requested_bytes=None,
        reserved_bytes=None,
        outside_bytes=None,
        failed_request_bytes=None,
        capacity_bytes=None,
        limits="No memory was recorded.",
        changes=(),
        num_more_changes=0,
        not_seen=None,
        next_command=report.next_commands[0] if report.next_commands else None,
    )


def _outcome(rank: RankReport, death: Death | None) -> str:
    if death is not None and death.kind != "thread":
        return "died"
    if rank.oom is not None and rank.oom.predicted:
        return "would-die"
    return "ended" if rank.source == Source.RECORDED.value and rank.complete else "unknown"


def _headline(rank: RankReport, death: Death | None) -> str:
    """Return what happened: how the run died, or would have died, or that it ended, and how high memory went."""
    if death is not None:
        return death.sentence
    oom = rank.oom
    if oom is not None and oom.predicted:
        return (
            f"On a device of {format_bytes(oom.capacity_bytes)} this run would have died"
            f"{when_and_where(oom.step, oom.phase, oom.module)}."
        )
    if oom is not None and was_caught(rank):
        return f"The run ran out of memory{when_and_where(oom.step, oom.phase, oom.module)}, caught that, and went on."
    size = format_bytes(peak_bytes(rank.peak))
    if rank.peak.time_ns is None and rank.peak.event is None:
        return f"{size} are allocated at the moment of the snapshot."
    return f"Memory peaks at {size}{when_of_peak(rank)}{of_recorded(rank)}.{higher_step(rank)}"


def _parts(peak: Peak) -> tuple[CardPart, ...]:
    parts = [CardPart(category=name, num_bytes=size) for name, size in peak.by_category.items() if size]
    return tuple(sorted(parts, key=lambda part: (-part.num_bytes, part.category)))
