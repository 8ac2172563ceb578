"""The changes on a card: at most three findings that lower the peak, each with whether the run then fits.

In: a rank and the findings of the report. Out: `CardChange`s with the findings' own figures. Whether a change fits is
said only where it is certain enough: a bound above it lies below the capacity, or a bound below it beyond.
"""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.advice.find import OF_RESERVED
from memtrace.analysis.card.names import name_of
from memtrace.analysis.results.card import CardChange
from memtrace.analysis.results.report import Finding, RankReport

MAX_CHANGES = 3
_OUTCOMES = frozenset({"oom", "rank-died"})
"""Findings that say what happened, which the headline does, and not what to change."""
_UNKNOWN_SLACK = 0.05
"""Of a peak whose reserved bytes are not known, what rounding and idle pieces may come to."""


def changes_of(
    rank: RankReport, findings: Sequence[Finding], capacity_bytes: int | None
) -> tuple[tuple[CardChange, ...], int]:
    """Return the changes to show, and how many findings there are beside them."""
    own = [one for one in findings if one.rank in (rank.rank, None) and one.slug not in _OUTCOMES]
    # Of all that is found, this is about memory: what saves time only comes last.
    of_memory = [one for one in own if one.saves_bytes is not None]
    untold = [one for one in own if one.saves_bytes is None and one.saves_ns is None]
    first = [one for one in untold if one.severity != "info"]
    ordered = [*first, *of_memory, *(one for one in untold if one.severity == "info")]
    shown = ordered[:MAX_CHANGES]
    return tuple(_change(one, rank, capacity_bytes) for one in shown), len(own) - len(shown)


def _change(finding: Finding, rank: RankReport, capacity_bytes: int | None) -> CardChange:
    is_reserved = finding.slug in OF_RESERVED
    basis = "requested" if rank.peak.allocated_bytes is None else "allocated"
    name, price = name_of(finding)
    return CardChange(
        slug=finding.slug,
        name=name,
        title=finding.title,
        change=finding.change,
        price=price,
        cost=finding.cost,
        saves_bytes=finding.saves_bytes,
        new_peak_bytes=finding.new_peak_bytes,
        basis="reserved" if is_reserved else basis,
        fits=_fits(finding, rank, capacity_bytes, is_reserved=is_reserved),
        where=finding.where,
    )


def _fits(finding: Finding, rank: RankReport, capacity_bytes: int | None, *, is_reserved: bool) -> bool | None:
    new_peak = finding.new_peak_bytes
    if new_peak is None or capacity_bytes is None:
        return None
    outside = _outside(rank)
    if new_peak + outside > capacity_bytes:
        return False
    most = _most_needed(finding, rank)
    if most is None:
        return None
    slack = 0 if is_reserved else _slack(rank, new_peak)
    return True if most + outside + slack <= capacity_bytes else None


def _outside(rank: RankReport) -> int:
    """Return what others are known to hold of the device."""
    return (rank.peak.non_torch_bytes if rank.oom is None else rank.oom.non_torch_bytes) or 0


def _slack(rank: RankReport, peak_bytes: int) -> int:
    """Return what the allocator may hold beside the peak."""
    reserved, allocated = rank.max_reserved_bytes, rank.peak.allocated_bytes
    if reserved is None or allocated is None:
        return int(_UNKNOWN_SLACK * peak_bytes)
    return max(0, reserved - allocated)


def _most_needed(finding: Finding, rank: RankReport) -> int | None:
    """Return a bound above the peak with a change; `None` where the run died before it had one.

    The step that failed was not seen to its end. Where the one before it was, that tells what it would have needed.
    """
    assert finding.new_peak_bytes is not None
    oom = rank.oom
    if oom is None:
        return finding.new_peak_bytes if rank.complete else None
    if oom.predicted:
        return finding.new_peak_bytes
    needs = oom.needs
    if needs is None or finding.saves_bytes is None or oom.request_bytes is None:
        return None
    left = sum(one.num_bytes for one in needs.resident)
    return max(
        needs.next_bytes - finding.saves_bytes,
        finding.new_peak_bytes + left,
        finding.new_peak_bytes + oom.request_bytes,
    )
