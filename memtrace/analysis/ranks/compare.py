"""Any number of rank traces as one run: peaks side by side, who is missing or died, what is shared or copied.

In: the `RankReport`s of a run. Out: `RanksResult`. Nothing here reads a trace, so that ranks may be analysed anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memtrace.analysis.ranks.outliers import highest, lower_median, outliers
from memtrace.analysis.ranks.savings import copies_of, savings
from memtrace.analysis.ranks.sharding import Layout, layout_of, schemes
from memtrace.analysis.results.ranks import RankRow, RanksResult, Spread
from memtrace.analysis.results.report import RankReport
from memtrace.analysis.sentences.death import FAILURES, failure_of, last_ended_step
from memtrace.analysis.sentences.verdict import peak_bytes

MAX_MISSING = 1000
"""Missing ranks that are named one by one."""


def compare_ranks(reports: Sequence[RankReport]) -> RanksResult | None:
    """Return the ranks of a run beside each other; `None` where the run had one rank, or its ranks have no numbers.

    Of a rank with several devices the accelerator with the highest peak counts, or the CPU if there is none.
    """
    positions = _main_devices(reports)
    ranks = {rank: reports[at] for rank, at in positions.items()}
    world_size = max((size for report in ranks.values() if (size := _world_size(report))), default=None)
    if not ranks or max(len(ranks), world_size or 1) < 2:
        return None
    rows = tuple(_row(rank, positions[rank], report) for rank, report in ranks.items())
    missing = [number for number in range(min(world_size or 0, MAX_MISSING + len(ranks))) if number not in ranks]
    spreads = _spreads(ranks)
    layout = layout_of({rank: one.rank_facts for rank, one in ranks.items() if one.rank_facts is not None})
    of_parameter = {} if layout.is_opaque else copies_of(layout, world_size)
    copies = max(of_parameter.values(), default=None)
    saved = savings(layout, of_parameter)
    return RanksResult(
        world_size=world_size,
        ranks=rows,
        num_missing=(world_size or 0) - sum(1 for rank in ranks if 0 <= rank < (world_size or 0)),
        missing=tuple(missing[:MAX_MISSING]),
        failed=_failed(rows),
        behind=_behind(rows),
        spreads=spreads,
        highest=highest(ranks),
        outliers=outliers(ranks),
        schemes=schemes(layout, copies),
        copies=copies,
        savings=saved,
        savings_inferred=bool(saved) and not _is_certain(layout, world_size),
    )


def _main_devices(reports: Sequence[RankReport]) -> dict[int, int]:
    """Return for each rank the position of the device that its training uses, by rank."""
    best: dict[int, int] = {}
    for at, report in enumerate(reports):
        if report.rank is None:
            continue
        if report.rank not in best or _weight(report) > _weight(reports[best[report.rank]]):
            best[report.rank] = at
    return dict(sorted(best.items()))


def _weight(report: RankReport) -> tuple[bool, int]:
    return report.device != "cpu", peak_bytes(report.peak) or 0


def _world_size(report: RankReport) -> int | None:
    size: Any = report.facts.get("world_size")
    return size if isinstance(size, int) and size > 0 else None


def _row(rank: int, position: int, report: RankReport) -> RankRow:
    steady, host = report.steady_state_peak, report.facts.get("host")
    return RankRow(
        rank=rank,
        position=position,
        device=report.device,
        host=None if host is None else str(host),
        peak_bytes=peak_bytes(report.peak),
        by_category=report.peak.by_category,
        steady_peak_bytes=None if steady is None or steady.predicted else peak_bytes(steady),
        reserved_bytes=report.max_reserved_bytes,
        capacity_bytes=report.capacity_bytes,
        last_step=last_ended_step(report),
        failure=failure_of(report),
    )


def _failed(rows: Sequence[RankRow]) -> tuple[int, ...]:
    failed = [(row.last_step or 0, FAILURES.index(row.failure), row.rank) for row in rows if row.failure is not None]
    return tuple(rank for _, _, rank in sorted(failed))


def _behind(rows: Sequence[RankRow]) -> tuple[int, ...]:
    """Return the ranks that ended in order at an earlier step than others. What a profile covers is no end."""
    last = max((row.last_step for row in rows if row.last_step is not None), default=None)
    return tuple(
        row.rank for row in rows if row.failure is None and row.last_step is not None and row.last_step != last
    )


def _spreads(ranks: Mapping[int, RankReport]) -> tuple[Spread, ...]:
    """Return how the peak, and each category at it, differs over the ranks that have one."""
    known = {rank: report for rank, report in ranks.items() if peak_bytes(report.peak)}
    if len(known) < 2:
        return ()
    names = {name for report in known.values() for name, num_bytes in report.peak.by_category.items() if num_bytes}
    categories = [
        _spread(name, {rank: report.peak.by_category.get(name, 0) for rank, report in known.items()}) for name in names
    ]
    whole = _spread("peak", {rank: peak_bytes(report.peak) or 0 for rank, report in known.items()})
    return (whole, *sorted(categories, key=lambda one: (-one.max_bytes, one.name)))


def _spread(name: str, amounts: Mapping[int, int]) -> Spread:
    """Return the spread of one amount; of ranks that are equal the first is named."""
    least, most = min(amounts, key=lambda rank: amounts[rank]), max(amounts, key=lambda rank: amounts[rank])
    return Spread(
        name=name,
        min_bytes=amounts[least],
        min_rank=least,
        median_bytes=lower_median(list(amounts.values())),
        max_bytes=amounts[most],
        max_rank=most,
    )


def _is_certain(layout: Layout, world_size: int | None) -> bool:
    """Return whether torch's own objects say that the copies are copies, on all ranks of the run."""
    every = list(layout.facts.values())
    is_told = all(one.uses_ddp for one in every) or all(any(one.placements) for one in every)
    return is_told and len(every) == world_size
