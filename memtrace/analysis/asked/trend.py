"""Several runs in a row: how the peak went from one to the next, and where it rose most.

In: the `Report` of each run. Out: `Trend`. Of a run the rank and device count that its verdict is about.
"""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.asked.step_curve import step_curve
from memtrace.analysis.results.report import Peak, RankReport, Report
from memtrace.analysis.results.trend import Trend, TrendRun
from memtrace.analysis.sentences.verdict import main_rank
from memtrace.units import format_bytes


def trend(reports: Sequence[Report], *, title: str, by_time: bool = False, unread: Sequence[str] = ()) -> Trend:
    """Return runs in a row, in the order given or by the time of their recording; those without a time come first."""
    times = [_start(report) for report in reports]
    if by_time:
        order = sorted(range(len(reports)), key=lambda at: (times[at] or 0, reports[at].title))
        reports, times = [reports[at] for at in order], [times[at] for at in order]
    mains = [_main(report) for report in reports]
    known = [one.peak for one in mains if one is not None]
    compares = "allocated" if known and all(one.allocated_bytes is not None for one in known) else "requested"
    runs: list[TrendRun] = []
    for report, rank, time_ns in zip(reports, mains, times, strict=True):
        before = runs[-1].peak_bytes if runs else None
        runs.append(_run(report, rank, time_ns, compares=compares, before=before))
    return Trend(title=title, verdict=_verdict(runs), compares=compares, runs=tuple(runs), unread=tuple(unread))


def _start(report: Report) -> int | None:
    """Return the first moment that is known of a run."""
    steps = [step.start_ns for rank in report.ranks for step in rank.steps if step.start_ns]
    curves = [rank.timeline for rank in report.ranks if rank.timeline is not None and len(rank.timeline.time_ns)]
    found = [*steps, *(int(one.time_ns[0]) for one in curves)]
    return min((one for one in found if one > 0), default=None)


def _main(report: Report) -> RankReport | None:
    at = main_rank(report.ranks)
    return None if at is None else report.ranks[at]


def _run(
    report: Report, rank: RankReport | None, time_ns: int | None, *, compares: str, before: int | None
) -> TrendRun:
    peak = None if rank is None else _height(rank.peak, compares)
    steady = None if rank is None else rank.steady_state_peak
    card = report.card
    return TrendRun(
        title=report.title,
        start_ns=time_ns,
        rank=None if rank is None else rank.rank,
        device=None if rank is None else rank.device,
        peak_bytes=peak,
        steady_bytes=None if steady is None or steady.predicted else _height(steady, compares),
        reserved_bytes=None if rank is None else rank.max_reserved_bytes,
        leak_bytes=0 if rank is None else sum(one.bytes_per_step for one in rank.leaks),
        by_category={} if rank is None else dict(rank.peak.by_category),
        change_bytes=None if peak is None or before is None else peak - before,
        outcome="unknown" if card is None else card.outcome,
        death=None if card is None or card.death is None else card.death.sentence,
        curve=None if rank is None else step_curve(rank, allocated=compares == "allocated"),
    )


def _height(peak: Peak, compares: str) -> int | None:
    return peak.allocated_bytes if compares == "allocated" else peak.requested_bytes


def _verdict(runs: Sequence[TrendRun]) -> str:
    """Return how the peak went from the first run to the last, and where it rose most."""
    known = [one for one in runs if one.peak_bytes is not None]
    if len(known) < 2:
        return "There are no two runs whose peaks are known."
    first, last = known[0].peak_bytes or 0, known[-1].peak_bytes or 0
    share = f" ({100 * (last - first) / first:+.1f} %)" if first else ""
    went = "stays the same" if first == last else "rises" if last > first else "falls"
    sentence = f"Over {len(runs)} runs the peak {went}, from {format_bytes(first)} to {format_bytes(last)}{share}"
    steepest = max(runs, key=lambda one: one.change_bytes or 0)
    if steepest.change_bytes is not None and steepest.change_bytes > 0:
        sentence += f"; most with {steepest.title}, by {format_bytes(steepest.change_bytes)}"
    return f"{sentence}."
