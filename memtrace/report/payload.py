"""What the page shows, as data: view dictionaries with numbers already written for people, and arrays for drawing.

In: a `Report`. Out: JSON values, described in viewers/README.md. Every number is a field of a result, or a share or a
sum of such fields. Each view of the page has a file of its own beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from memtrace.analysis.results import Finding, RankReport, Report
from memtrace.report.hiding import hidden_source
from memtrace.report.map_payload import PackedMap
from memtrace.report.markup import visible
from memtrace.report.palette import CATEGORIES
from memtrace.report.payload_cards import cards, oom_view
from memtrace.report.payload_facts import facts_view
from memtrace.report.payload_findings import finding_view, notes_view
from memtrace.report.payload_peak import breakdown, changes, modules_view, stacks_view
from memtrace.report.payload_steps import steps_view
from memtrace.report.payload_timeline import timeline_view
from memtrace.report.payload_values import Arrays, View, main_bytes, rank_label, share_of
from memtrace.units import format_bytes

PAYLOAD_VERSION = 1


def report_payload(
    report: Report, *, version: str, maps: Mapping[int, PackedMap] = MappingProxyType({}), with_source: bool = True
) -> View:
    """Return everything that the page of a report shows; `maps` are those of the ranks at these positions.

    Without `with_source` no path and no source line is in it.
    """
    arrays = Arrays()
    ranks = [
        _rank_view(rank, report.findings, arrays) | _map_view(rank, maps.get(index))
        for index, rank in enumerate(report.ranks)
    ]
    view = {
        "payload_version": PAYLOAD_VERSION,
        "memtrace": version,
        "title": report.title,
        "verdict": report.verdict,
        "notes": notes_view(report.warnings),
        "findings": [finding_view(finding) for finding in report.findings if finding.rank is None],
        "overview": _overview(report.ranks),
        "categories": {name: {"label": ink.label, "hatched": ink.hatched} for name, ink in CATEGORIES.items()},
        "ranks": ranks,
    }
    shown = view if with_source else hidden_source(view)
    return {**visible(shown), "arrays": arrays.encoded}


def _rank_view(rank: RankReport, findings: Sequence[Finding], arrays: Arrays) -> View:
    return {
        "label": rank_label(rank),
        "complete": rank.complete,
        "cards": cards(rank),
        "oom": None if rank.oom is None else oom_view(rank.oom),
        "notes": notes_view(rank.warnings),
        "findings": [
            finding_view(finding) for finding in findings if finding.rank is not None and finding.rank == rank.rank
        ],
        "breakdown": breakdown(rank),
        "timeline": None
        if rank.timeline is None or not len(rank.timeline.event)
        else timeline_view(rank, rank.timeline, arrays),
        "modules": modules_view(rank.top_modules),
        "stacks": stacks_view(rank.top_stacks),
        "steps": steps_view(rank.steps),
        "changes": changes(rank.first_step_peak, rank.steady_state_peak),
        "facts": facts_view(rank),
    }


def _map_view(rank: RankReport, packed: PackedMap | None) -> View:
    """Return the tables of a rank's map; its columns stand beside the payload."""
    reason = "Nothing is known of any allocation of this device."
    if rank.allocation_map is not None:
        reason = (
            "The allocations of this rank are not in this page, to keep it small: "
            "write a report of this rank's trace alone."
        )
    return {"map": None if packed is None else packed.view, "map_missing": reason}


def _overview(ranks: Sequence[RankReport]) -> list[View]:
    """Return the peaks of all ranks, beside the largest of them."""
    peaks = [main_bytes(rank.peak) for rank in ranks]
    largest = max((peak for peak in peaks if peak is not None), default=0)
    return [
        {
            "label": rank_label(rank),
            "peak": format_bytes(peak),
            "share": share_of(peak, largest),
            "complete": rank.complete,
        }
        for rank, peak in zip(ranks, peaks, strict=True)
    ]
