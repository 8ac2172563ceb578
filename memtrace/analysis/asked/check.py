"""Budgets and a baseline held against a report: does this run keep them?

In: `Report`, budgets, and the report of a baseline if there is one. Out: `Check`. What the report does not hold is an
error and never a pass.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from memtrace.analysis.asked.check_figures import (
    CATEGORIES,
    MOMENTS,
    NO_HISTORY,
    NO_VALUE,
    RESERVED,
    figure_of,
    has_peak,
    missing,
    name_of,
    parts_of,
)
from memtrace.analysis.asked.diff import compare
from memtrace.analysis.results.check import BaselineResult, Budget, BudgetResult, ChangeResult, Check, GrownStack
from memtrace.analysis.results.diff import RankDiff
from memtrace.analysis.results.report import PredictedPeak, RankReport, Report, StackRow
from memtrace.analysis.sentences.death import death_of
from memtrace.errors import MemtraceError
from memtrace.schema.frames import own_frames
from memtrace.schema.names import category_named
from memtrace.units import parse_bytes

_BUDGET = re.compile(r"\s*([a-z_]+(?:\.[a-z_]+)?)\s*(<=|<|=)\s*([^<>=]+)")
_INCOMPLETE = frozenset({"missing-ranks", "file-unreadable"})
"""Notes of a run that say that a rank was not looked at."""
_NUM_STACKS = 3
_DEATHS = frozenset({"exception", "signal", "exit"})
"""Ways to die after which figures say nothing. An out-of-memory is told by rank; some runs are stopped on purpose."""
ALL_CATEGORIES = "categories"
"""Stands for every category where they are asked for."""


def parse_budget(text: str) -> Budget:
    """Return the budget that a text means.

    >>> parse_budget("steady_peak=70GiB").limit_bytes == 70 * 1024**3
    True
    >>> parse_budget("activation < 512")
    Budget(name='activation', is_strict=True, limit_bytes=512)
    >>> parse_budget("end.parameter<=1kB").expression
    'end.parameter<=1000'

    Raises:
        MemtraceError: it is not NAME=SIZE, NAME<SIZE or NAME<=SIZE, or the name is not one of a figure.
    """
    match = _BUDGET.fullmatch(text)
    if match is None:
        hint = 'write a name, then =, < or <=, then a size, as in steady_peak=70GiB or "activation<30GiB"'
        raise MemtraceError(f"not a budget: {text!r}", hint=hint)
    written, operator, size = match.groups()
    name = _figure_named(written)
    if name is None:
        hint = f"one of {', '.join((*MOMENTS[:4], RESERVED, MOMENTS[4]))}, or a category: {', '.join(CATEGORIES)}"
        raise MemtraceError(f"no figure is named {written!r}", hint=f"{hint}; or both, as end.parameter")
    return Budget(name=name, is_strict=operator == "<", limit_bytes=parse_bytes(size))


def _figure_named(written: str) -> str | None:
    """Return the name of the figure that a user names, a category also as reports call it.

    >>> _figure_named("peak"), _figure_named("end.weights"), _figure_named("unattributed"), _figure_named("end.peak")
    ('peak', 'end.parameter', 'unknown', None)
    """
    if written in (*MOMENTS, RESERVED):
        return written
    moment, dot, words = written.rpartition(".")
    category = category_named(words)
    return None if category is None or (dot and moment not in MOMENTS) else f"{moment}{dot}{category.value}"


def check(
    report: Report,
    budgets: Sequence[Budget] = (),
    *,
    baseline: Report | None = None,
    tolerance_pct: float = 0.0,
    gates: Collection[str] = (),
) -> Check:
    """Hold a report against budgets, which every rank must keep, and against a baseline.

    `tolerance_pct` is the growth allowed to the peak, what is reserved, the steady state and what leaks, in percent of
    the baseline's. Categories at the peak inform; those that `gates` names must not grow by more than that of the peak.

    Raises:
        MemtraceError: the report, or the baseline, does not hold a figure that is asked for.
    """
    ranks = _judged(report)
    results = tuple(_budget_result(budget, ranks) for budget in budgets)
    against = None if baseline is None else _against(baseline, report, tolerance_pct, gates)
    problems = tuple(_problems(report))
    kept = all(one.passed for one in results) and (against is None or not any(map(_breaks, against.changes)))
    return Check(
        title=report.title,
        passed=kept and not problems,
        budgets=results,
        baseline=against,
        problems=problems,
        notes=(*report.warnings, *dict.fromkeys(note for rank in ranks for note in rank.warnings)),
    )


def _judged(report: Report) -> tuple[RankReport, ...]:
    """Return the devices that budgets are about: of a run on accelerators not what its processes hold on the CPU."""
    accelerators = tuple(rank for rank in report.ranks if rank.device != "cpu")
    ranks = accelerators or report.ranks
    if not ranks:
        raise MemtraceError(f"{report.title}: no memory was recorded, so no budget can be checked", slug=NO_VALUE)
    return ranks


def _problems(report: Report) -> Iterator[str]:
    death = death_of(report.ranks, report.warnings)
    if death is not None and death.kind in _DEATHS:
        yield f"{death.sentence} Its figures are those of a run that did not go on."
    for rank in report.ranks:
        if rank.oom is not None and not rank.oom.predicted:
            # It died before it reached its peak: what is below the budget says nothing.
            yield f"{name_of(rank)} ran out of memory: its figures are those of a run that did not go on."
    for note in report.warnings:
        if note.slug in _INCOMPLETE:
            yield note.message


def _budget_result(budget: Budget, ranks: Sequence[RankReport]) -> BudgetResult:
    figures = [figure_of(budget.name, rank, ranks) for rank in ranks]
    over = [one for one in figures if not _keeps(budget, one.num_bytes)]
    worst = max(figures, key=lambda one: one.num_bytes)
    predicted = worst.state if isinstance(worst.state, PredictedPeak) else None
    # The range is one of the whole peak: a category has none of its own.
    ranged = predicted if predicted is not None and worst.exact_bytes is None else None
    return BudgetResult(
        budget=budget,
        passed=not over,
        value_bytes=worst.num_bytes,
        exact_bytes=worst.exact_bytes,
        measures=worst.measures,
        rank=worst.rank.rank,
        device=worst.rank.device,
        num_ranks=len(figures),
        num_over=len(over),
        predicted=predicted is not None,
        low_bytes=None if ranged is None else ranged.low_bytes,
        high_bytes=None if ranged is None else ranged.high_bytes,
        largest=_largest(budget.name, worst.rank) if over else (),
    )


def _keeps(budget: Budget, num_bytes: int) -> bool:
    return num_bytes < budget.limit_bytes if budget.is_strict else num_bytes <= budget.limit_bytes


def _largest(name: str, rank: RankReport) -> tuple[StackRow, ...]:
    """Return the largest stacks of the peak, of one category if the budget is for one; none of another moment."""
    moment, category = parts_of(name)
    if moment != "peak":
        return ()
    if category is None:
        return tuple(rank.top_stacks[:_NUM_STACKS])
    rows = [row for row in rank.top_stacks if row.by_category.get(category)]
    # Of a stack that made several kinds only this one counts against the budget.
    own = [replace(row, category=category, num_bytes=row.by_category[category]) for row in rows]
    own = [replace(row, by_category={category: row.num_bytes}) for row in own]
    return tuple(sorted(own, key=lambda row: -row.num_bytes)[:_NUM_STACKS])


def _breaks(change: ChangeResult) -> bool:
    return change.gates and not change.passed


def _verdict(changes: Sequence[ChangeResult]) -> str:
    if any(map(_breaks, changes)):
        return "WORSE"
    return "BETTER" if any(one.name == "peak" and one.fell for one in changes) else "SAME"


def _against(baseline: Report, report: Report, tolerance_pct: float, gates: Collection[str]) -> BaselineResult:
    """Return the comparison with a baseline; raises `MemtraceError` where they have nothing to compare."""
    diff = compare(_with_judged(baseline), _with_judged(report))
    if diff.only_in_a:
        message = f"{report.title} has no {', '.join(diff.only_in_a)}, which the baseline has"
        raise MemtraceError(message, hint="compare runs on as many ranks and devices", slug=NO_VALUE)
    by_rank = {at: tuple(_changes(rank, tolerance_pct, gates)) for at, rank in enumerate(diff.ranks)}
    broken = next((at for at, changes in by_rank.items() if any(map(_breaks, changes))), None)
    grown = () if broken is None else _grown(diff.ranks[broken])
    every = tuple(one for changes in by_rank.values() for one in changes)
    return BaselineResult(
        title=baseline.title,
        tolerance_pct=tolerance_pct,
        verdict=_verdict(every),
        changes=every,
        grown=grown,
    )


def _grown(rank: RankDiff) -> tuple[GrownStack, ...]:
    """Return what grew most, by the program's own frames: those of libraries would part one line into several."""
    total: dict[tuple[str, ...], int] = {}
    for one in rank.stacks:
        own = tuple(own_frames(one.frames))
        total[own] = total.get(own, 0) + one.delta_bytes
    rows = [GrownStack(frames=own, delta_bytes=size) for own, size in total.items() if size > 0]
    return tuple(sorted(rows, key=lambda one: (-one.delta_bytes, one.frames))[:_NUM_STACKS])


def _with_judged(report: Report) -> Report:
    """Return a report without what is not judged; raises `MemtraceError` where a peak cannot be told."""
    ranks = _judged(report)
    for rank in ranks:
        if not has_peak(rank):
            raise missing(f"{report.title}: peak", rank, f"it {NO_HISTORY}")
    return replace(report, ranks=ranks)


def _changes(rank: RankDiff, tolerance_pct: float, gates: Collection[str]) -> Iterator[ChangeResult]:
    """Yield what gates, as far as both sides know it, and each category of one rank."""
    peak = rank.peak_a_bytes or 0
    figures = [("peak", peak, rank.peak_b_bytes or 0)]
    for name, before, after in (
        ("reserved", rank.reserved_a_bytes, rank.reserved_b_bytes),
        ("steady_peak", rank.steady_a_bytes, rank.steady_b_bytes),
    ):
        if before is not None and after is not None:
            figures.append((name, before, after))
    if rank.leak_a_bytes or rank.leak_b_bytes:
        figures.append(("leak", rank.leak_a_bytes, rank.leak_b_bytes))
    for name, before, after in figures:
        yield _change(rank, name, before, after, _share(before, tolerance_pct), gates=True)
    for one in rank.categories:
        asked = ALL_CATEGORIES in gates or str(one.name) in gates
        yield _change(rank, str(one.name), one.a_bytes, one.b_bytes, _share(peak, tolerance_pct), gates=asked)


def _share(num_bytes: int, percent: float) -> int:
    # Half up, as sizes are read: a tolerance of 2 % of 150 bytes is 3 bytes, whatever floats make of it.
    return int(num_bytes * percent / 100 + 0.5)


def _change(rank: RankDiff, name: str, before: int, after: int, limit: int, *, gates: bool) -> ChangeResult:
    return ChangeResult(
        name=name,
        rank=rank.rank,
        device=rank.device_b,
        gates=gates,
        baseline_bytes=before,
        value_bytes=after,
        delta_bytes=after - before,
        limit_bytes=limit,
        passed=after - before <= limit,
        fell=before - after > limit,
    )
