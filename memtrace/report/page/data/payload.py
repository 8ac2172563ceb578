"""What the page shows, as data: view dictionaries with numbers already written for people, and arrays for drawing.

In: a `Report`. Out: JSON values, described in viewers/README.md. Every number is a field of a result, or a share or a
sum of such fields. Each view of the page has a file of its own beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import orjson

from memtrace.analysis.results.report import Finding, RankReport, Report
from memtrace.report.drawing.markup import visible
from memtrace.report.drawing.palette import CATEGORIES
from memtrace.report.drawing.step_time_rows import throughput_sentences
from memtrace.report.page.data.cards import cards, oom_view
from memtrace.report.page.data.chart import chart_view
from memtrace.report.page.data.facts import facts_view
from memtrace.report.page.data.findings import finding_view, notes_view
from memtrace.report.page.data.lanes import extent_ns
from memtrace.report.page.data.packed_map import PackedMap
from memtrace.report.page.data.peak import breakdown, changes, modules_view, stacks_view
from memtrace.report.page.data.ranks import detail_order, ranks_view
from memtrace.report.page.data.steps import steps_view
from memtrace.report.page.data.time import time_view
from memtrace.report.page.data.timeline import timeline_view
from memtrace.report.page.data.values import Arrays, View, main_bytes, rank_label, share_of
from memtrace.units import format_bytes

PAYLOAD_VERSION = 1
MAX_DETAIL_CHARS = 24_000_000
"""About the most that timelines, stacks and steps of all ranks may add to a page; the main rank's are always there."""


def report_payload(report: Report, *, version: str, maps: Mapping[int, PackedMap] = MappingProxyType({})) -> View:
    """Return everything that the page of a report shows; `maps` are those of the ranks at these positions."""
    arrays = Arrays()
    ranks = _rank_views(report, maps, arrays)
    view = {
        "payload_version": PAYLOAD_VERSION,
        "memtrace": version,
        "title": report.title,
        "verdict": report.verdict,
        "notes": notes_view(report.warnings),
        "findings": [finding_view(finding) for finding in report.findings if finding.rank is None],
        "main": report.main_rank or 0,
        "overview": _overview(report.ranks),
        "ranked": ranks_view(report, arrays),
        "categories": {name: {"label": ink.label, "hatched": ink.hatched} for name, ink in CATEGORIES.items()},
        "ranks": ranks,
    }
    return {**visible(view), "arrays": arrays.encoded}


def _rank_views(report: Report, maps: Mapping[int, PackedMap], arrays: Arrays) -> list[View]:
    """Return a view of each rank: in full as many as fit, those first that a reader looks for; else its overview."""
    room = MAX_DETAIL_CHARS
    views: dict[int, View] = {}
    for index in detail_order(report):
        rank, before = report.ranks[index], len(arrays.encoded)
        overview = _overview_of_rank(rank, report.findings)
        if room > 0 or not views:
            details = visible(_details(rank, arrays))
            view = overview | details | _map_view(rank, maps.get(index))
            room -= len(orjson.dumps(details)) + sum(map(len, arrays.encoded[before:]))
            if room >= 0 or not views:
                views[index] = view
                continue
            del arrays.encoded[before:]
        views[index] = overview | _no_details(rank)
    return [views[index] for index in range(len(report.ranks))]


def _overview_of_rank(rank: RankReport, findings: Sequence[Finding]) -> View:
    return {
        "label": rank_label(rank),
        "complete": rank.complete,
        "cards": cards(rank),
        "oom": None if rank.oom is None else oom_view(rank.oom),
        "notes": notes_view(rank.warnings),
        "findings": [
            finding_view(finding) for finding in findings if finding.rank is not None and finding.rank == rank.rank
        ],
        "breakdown": None if main_bytes(rank.peak) is None and rank.time is not None else breakdown(rank),
    }


def _details(rank: RankReport, arrays: Arrays) -> View:
    extent = extent_ns(rank)
    return {
        "left_out": None,
        "chart": None if extent is None else chart_view(rank, *extent),
        "timeline": None if rank.timeline is None or not len(rank.timeline.event) else timeline_view(rank.timeline),
        "modules": modules_view(rank.top_modules),
        "stacks": stacks_view(rank.top_stacks),
        "steps": steps_view(rank),
        "speed": [] if rank.step_times is None else throughput_sentences(rank.step_times),
        "time": time_view(rank, arrays),
        "changes": changes(rank.first_step_peak, rank.steady_state_peak),
        "facts": facts_view(rank),
    }


def _no_details(rank: RankReport) -> View:
    """Return what stands in place of the details of a rank that the page does not hold."""
    text = f"Of this rank the page holds its overview only, to stay small. {_alone(rank)}"
    none = dict.fromkeys(("chart", "timeline", "modules", "stacks", "steps", "time", "changes", "facts", "map"))
    return {**none, "left_out": text, "map_missing": text}


def _alone(rank: RankReport) -> str:
    """Return how to see everything of a rank."""
    if rank.rank is None:
        return "Write a report of its trace alone to see the rest."
    command = f"memtrace report rank-{rank.rank:05d}.json.gz --html rank-{rank.rank}.html"
    return f"To see the rest, write a report of its own trace, in the folder of the run: {command}"


def _map_view(rank: RankReport, packed: PackedMap | None) -> View:
    """Return the tables of a rank's map; its columns stand beside the payload."""
    reason = "Nothing is known of any allocation of this device."
    if rank.allocation_map is not None or rank.map_left_out:
        reason = f"The allocations of this rank are not in this page, to keep it small. {_alone(rank)}"
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
