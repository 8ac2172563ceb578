"""Many ranks on one page: a cell each, small timelines side by side, and a row each in a table.

In: the reports of all ranks. Out: the view of the run, and which of the ranks the page holds in full. Of a rank that
it does not, its overview and its small timeline remain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from memtrace.analysis.results.ranks import RanksResult, Scheme
from memtrace.analysis.results.report import RankReport, Report
from memtrace.report.drawing.palette import category_ink
from memtrace.report.page.data.mini_timelines import MiniTimelines
from memtrace.report.page.data.time import whole_view
from memtrace.report.page.data.values import (
    NOT_RECORDED,
    Arrays,
    Reference,
    View,
    main_bytes,
    rank_label,
    share_of,
    step_name,
)
from memtrace.units import format_bytes, format_ns


def ranks_view(report: Report, arrays: Arrays) -> View | None:
    """Return what a page shows of all ranks beside each other; `None` where there is one.

    Where no rank has a number, its devices stand in their place.
    """
    ranks = report.ranks_overview
    positions = main_positions(report.ranks)
    if len(positions) < 2:
        return None
    shown = [report.ranks[position] for position in positions]
    minis = MiniTimelines.of_ranks(shown)
    largest = max((main_bytes(rank.peak) or 0 for rank in shown), default=0)
    cells = [
        _cell(report.ranks[position], position, ranks, largest) | {"mini": _mini(minis, index, arrays)}
        for index, position in enumerate(positions)
    ]
    has_numbers = any(rank.rank is not None for rank in shown)
    return {
        "noun": "ranks" if has_numbers else "devices",
        "cells": cells,
        "missing": [] if ranks is None else _missing(ranks),
        "aligned": minis.aligned,
        "span": None if minis.span_ns is None else format_ns(minis.span_ns),
        "top": minis.top_bytes,
        "top_text": format_bytes(minis.top_bytes),
        "mark": minis.mark,
        "spreads": [] if ranks is None else _spreads(ranks),
        "outliers": [] if ranks is None else _outliers(ranks),
        "schemes": [] if ranks is None else [_scheme(one) for one in ranks.schemes],
    }


def _scheme(one: Scheme) -> list[str]:
    return [f"{one.name} (inferred)" if one.inferred else one.name, one.how]


def main_positions(ranks: Sequence[RankReport]) -> list[int]:
    """Return the position of each rank's main device, by number: its first that is not the CPU, else its first.

    Of several processes without a number, and of one with several devices, each is shown.
    """
    best: dict[int, int] = {}
    for position, rank in enumerate(ranks):
        if rank.rank is None:
            continue
        known = best.setdefault(rank.rank, position)
        if ranks[known].device == "cpu" and rank.device != "cpu":
            best[rank.rank] = position
    if len(best) < 2:
        return list(range(len(ranks)))
    return [best[number] for number in sorted(best)]


def detail_order(report: Report) -> list[int]:
    """Return the positions of all ranks, those first of which a reader wants to know most: the main one, then those
    that failed or stand out."""
    noted = set() if report.ranks_overview is None else {one.rank for one in report.ranks_overview.outliers}

    def interest(position: int) -> tuple[bool, bool, int]:
        rank = report.ranks[position]
        stands_out = rank.oom is not None or not rank.complete or rank.rank in noted
        return position != report.main_rank, not stands_out, position

    return sorted(range(len(report.ranks)), key=interest)


def _cell(rank: RankReport, position: int, ranks: RanksResult | None, largest: int) -> View:
    peak = main_bytes(rank.peak)
    notes = _remarks(rank, ranks)
    failed = rank.oom is not None and not rank.oom.predicted
    is_outlier = ranks is not None and any(one.rank == rank.rank for one in ranks.outliers)
    return {
        "position": position,
        "rank": rank.rank,
        "name": rank.device if rank.rank is None else str(rank.rank),
        "label": rank_label(rank),
        "host": None if rank.facts.get("host") is None else str(rank.facts["host"]),
        "peak": format_bytes(peak),
        "bytes": peak,
        "share": share_of(peak, largest),
        "steady": format_bytes(None if rank.steady_state_peak is None else main_bytes(rank.steady_state_peak)),
        "reserved": format_bytes(rank.max_reserved_bytes),
        "last_step": _last_step(rank),
        "state": "failed" if failed else "good" if rank.complete else "incomplete",
        "outlier": is_outlier,
        "time": None if rank.time is None else whole_view(rank.time),
        "notes": notes,
    }


def _remarks(rank: RankReport, ranks: RanksResult | None) -> list[str]:
    """Return what sets a rank apart, worst first."""
    words = []
    if rank.oom is not None and not rank.oom.predicted:
        words.append("out of memory" + ("" if rank.oom.step is None else f" in {step_name(rank.oom.step)}"))
    if not rank.complete:
        words.append("incomplete: it did not end in order")
    if ranks is None or rank.rank is None:
        return words
    if rank.rank in ranks.behind:
        words.append("ended at an earlier step than others")
    words += [
        f"{abs(one.excess_pct):.0f} % {'above' if one.excess_bytes > 0 else 'below'} the rank in the middle"
        for one in ranks.outliers
        if one.rank == rank.rank
    ]
    return words


def _last_step(rank: RankReport) -> str:
    ended = [step.step for step in rank.steps if step.end_ns is not None or not step.recorded]
    return str(max(ended)) if ended else NOT_RECORDED


def _mini(minis: MiniTimelines, index: int, arrays: Arrays) -> Reference | None:
    column = minis.columns[index]
    return None if column is None else arrays.add(column)


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of consecutive numbers."""
    for _, run in groupby(enumerate(sorted(numbers)), key=lambda one: one[1] - one[0]):
        found = [number for _, number in run]
        yield found[0], found[-1]


def _missing(ranks: RanksResult) -> list[View]:
    """Return a row for each run of ranks without a trace, and one for those whose numbers were not kept."""
    rows = [_hole(first, last) for first, last in _runs(ranks.missing)]
    rest = ranks.num_missing - len(ranks.missing)
    if rest > 0:
        name, after = f"{rest:,} more", ranks.missing[-1] + 1 if ranks.missing else 0
        rows.append({"before": after, "name": name, "count": rest, "label": f"{name} ranks: no trace"})
    return rows


def _hole(first: int, last: int) -> View:
    name = str(first) if first == last else f"{first}–{last}"
    noun = "rank" if first == last else "ranks"
    return {"before": first, "name": name, "count": last - first + 1, "label": f"{noun} {name}: no trace"}


def _spreads(ranks: RanksResult) -> list[View]:
    return [
        {
            "name": "peak" if one.name == "peak" else category_ink(one.name).label,
            "values": [format_bytes(one.min_bytes), format_bytes(one.median_bytes), format_bytes(one.max_bytes)],
            "ranks": [one.min_rank, None, one.max_rank],
        }
        for one in ranks.spreads
    ]


def _outliers(ranks: RanksResult) -> list[View]:
    """Return what differs on each rank that stands out."""
    return [
        {
            "rank": one.rank,
            "title": f"Rank {one.rank}: {format_bytes(one.peak_bytes)}, {_excess(one.excess_bytes)} than rank "
            f"{one.median_rank} in the middle",
            "differences": [
                [
                    part.name.replace("_", " "),
                    f"{format_bytes(part.num_bytes)} instead of {format_bytes(part.median_bytes)}",
                ]
                for part in (*one.by_category[:3], *one.by_parameters[:3])
            ],
            "facts": list(one.facts),
        }
        for one in ranks.outliers
    ]


def _excess(num_bytes: int) -> str:
    return f"{format_bytes(abs(num_bytes))} {'more' if num_bytes > 0 else 'less'}"
