"""Ranks whose peak stands out from that of the rank in the middle, and what differs between the two.

In: a report a rank. Out: `Outlier`s, the largest difference first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memtrace.analysis.ranks.sharding import layer_of
from memtrace.analysis.results.ranks import Difference, Outlier, RankFacts
from memtrace.analysis.results.report import RankReport
from memtrace.analysis.sentences.verdict import peak_bytes
from memtrace.units import format_bytes

MIN_SHARE = 0.05
"""A peak that differs from the one in the middle by less than this share of it does not stand out."""
_TIMES_TYPICAL = 5
"""Nor does one that differs by less than so many times what the rank in the middle of all differences does."""
MAX_OUTLIERS = 8
_MAX_PARTS = 5
"""Categories, modules or groups of parameters named of one rank."""


def lower_median(values: Sequence[int]) -> int:
    """Return the value in the middle, the lower of two.

    >>> lower_median([3, 1, 2]), lower_median([4, 1, 2, 3])
    (2, 2)
    """
    return sorted(values)[(len(values) - 1) // 2]


def outliers(ranks: Mapping[int, RankReport]) -> tuple[Outlier, ...]:
    """Return the ranks that stand out."""
    peaks = _peaks(ranks)
    if len(peaks) < 2:
        return ()
    middle = _middle(peaks)
    away = {rank: abs(peak - peaks[middle]) for rank, peak in peaks.items()}
    least = max(MIN_SHARE * peaks[middle], _TIMES_TYPICAL * lower_median(list(away.values())))
    far = sorted((rank for rank in peaks if away[rank] > least), key=lambda rank: -away[rank])
    return tuple(_outlier(rank, middle, ranks) for rank in far[:MAX_OUTLIERS])


def highest(ranks: Mapping[int, RankReport]) -> Outlier | None:
    """Return the rank with the highest peak beside the one in the middle; `None` where no peak is higher than that."""
    peaks = _peaks(ranks)
    rank = max(peaks, key=lambda rank: peaks[rank], default=None)
    if rank is None or peaks[rank] == peaks[_middle(peaks)]:
        return None
    return _outlier(rank, _middle(peaks), ranks)


def _peaks(ranks: Mapping[int, RankReport]) -> dict[int, int]:
    return {rank: peak for rank, report in ranks.items() if (peak := peak_bytes(report.peak))}


def _middle(peaks: Mapping[int, int]) -> int:
    """Return the first rank whose peak is the one in the middle."""
    median = lower_median(list(peaks.values()))
    return min(rank for rank, peak in peaks.items() if peak == median)


def _outlier(rank: int, median_rank: int, ranks: Mapping[int, RankReport]) -> Outlier:
    report, median = ranks[rank], ranks[median_rank]
    peak, in_middle = peak_bytes(report.peak) or 0, peak_bytes(median.peak) or 0
    return Outlier(
        rank=rank,
        median_rank=median_rank,
        peak_bytes=peak,
        median_bytes=in_middle,
        excess_bytes=peak - in_middle,
        excess_pct=100 * (peak - in_middle) / in_middle,
        by_category=_differences(report.peak.by_category, median.peak.by_category),
        by_module=_differences(_modules(report), _modules(median)),
        by_parameters=_differences(_groups(report.rank_facts), _groups(median.rank_facts)),
        facts=tuple(_facts(report, median)),
    )


def _differences(own: Mapping[str, int], median: Mapping[str, int]) -> tuple[Difference, ...]:
    """Return where two differ, the largest difference first."""
    names = [name for name in {*own, *median} if own.get(name, 0) != median.get(name, 0)]
    ordered = sorted(names, key=lambda name: (-abs(own.get(name, 0) - median.get(name, 0)), name))
    return tuple(
        Difference(name=name, num_bytes=own.get(name, 0), median_bytes=median.get(name, 0))
        for name in ordered[:_MAX_PARTS]
    )


def _modules(report: RankReport) -> Mapping[str, int]:
    return {row.module: row.num_bytes for row in report.top_modules if row.module is not None}


def _groups(facts: RankFacts | None) -> Mapping[str, int]:
    """Return what is held of each layer, and of each module outside layers: parameters, gradients and states."""
    groups: dict[str, int] = {}
    if facts is None:
        return groups
    held = facts.parameter_bytes + facts.gradient_bytes + facts.row_state_bytes + facts.other_state_bytes
    for name, num_bytes in zip(facts.names, held.tolist(), strict=True):
        group = layer_of(name) or name.rpartition(".")[0] or name
        groups[group] = groups.get(group, 0) + num_bytes
    return groups


def _facts(report: RankReport, median: RankReport) -> Iterator[str]:
    """Yield what differs about the two processes."""
    rank, other = report.rank, median.rank
    for name, here, there in (
        ("host", report.facts.get("host"), median.facts.get("host")),
        ("autocast", _listed(report, "autocast_dtypes"), _listed(median, "autocast_dtypes")),
        ("memory of the device", _capacity(report), _capacity(median)),
        *_versions(report.facts.get("versions"), median.facts.get("versions")),
    ):
        if here != there:
            yield f"{name}: {here or 'not recorded'} on rank {rank}, {there or 'not recorded'} on rank {other}"


def _listed(report: RankReport, name: str) -> str:
    value = report.facts.get(name)
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else "none"


def _capacity(report: RankReport) -> str | None:
    return None if report.capacity_bytes is None else format_bytes(report.capacity_bytes)


def _versions(own: Any, median: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield name and both versions of each program whose version was recorded."""
    own, median = (one if isinstance(one, Mapping) else {} for one in (own, median))
    for name in sorted({*own, *median}, key=str):
        yield str(name), own.get(name), median.get(name)
