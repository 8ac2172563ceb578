"""What is wrong, or could be better, with the ranks of a run taken together.

In: the findings of each rank, and `RanksResult`. Out: the findings of the run. Advice that each rank gets alike, to
share out state, is given once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memtrace.analysis.ranks.contexts import shared_devices
from memtrace.analysis.results.ranks import Outlier, RankRow, RankSaving, RanksResult
from memtrace.analysis.results.report import Finding, RankReport
from memtrace.schema.names import Category, category_words
from memtrace.units import format_bytes

_MIN_IMBALANCE_PCT = 10.0
"""A highest peak that is closer to the one in the middle is no finding."""
_MIN_SAVING = 50
"""Nor is state that takes less than the peak divided by this."""
_COPIES = "state-on-every-rank"
_HELD = frozenset({Category.PARAMETER, Category.GRADIENT, Category.OPTIMIZER_STATE, Category.BUFFER})


def findings_of_run(
    findings: Sequence[Finding], overview: RanksResult | None, reports: Sequence[RankReport]
) -> tuple[Finding, ...]:
    """Return the findings of the ranks and of the run, in no order."""
    if overview is None:
        return tuple(findings)
    of_copies = [one for one in findings if one.slug == _COPIES]
    others = [one for one in findings if one.slug != _COPIES]
    of_run = (*_died(overview, reports), *_imbalance(overview), *_copies(overview, of_copies))
    return (*others, *of_run, *shared_devices(reports))


def _died(overview: RanksResult, reports: Sequence[RankReport]) -> Iterator[Finding]:
    """Yield the rank that died first, where others got further. An out-of-memory has a finding of its own."""
    rows = {row.rank: row for row in overview.ranks}
    first = rows[overview.failed[0]] if overview.failed else None
    furthest = max((row.last_step or 0 for row in overview.ranks), default=0)
    if first is None or first.failure == "oom" or (first.failure == "incomplete" and first.last_step == furthest):
        return
    exception = reports[first.position].facts.get("exception")
    kind = exception.get("type") if isinstance(exception, Mapping) else None
    how = f"ended with {kind}" if kind else "stopped without ending in order"
    yield Finding(
        slug="rank-died",
        severity="error",
        title=f"Rank {first.rank} {how} {_after(first)}, the first of {len(overview.failed)} that did not end in order",
        evidence={
            "failed_ranks": list(overview.failed),
            "last_steps": {str(row.rank): row.last_step for row in overview.ranks if row.failure is not None},
            "furthest_step": furthest,
            "exception": exception,
        },
        change="Look at the output of this rank: the others may have stopped only because it did.",
        cost="None.",
        saves_bytes=None,
        saves_ns=None,
        new_peak_bytes=None,
        rank=first.rank,
        where=None,
    )


def _after(row: RankRow) -> str:
    return "before the first step ended" if not row.last_step else f"after step {row.last_step}"


def _imbalance(overview: RanksResult) -> Iterator[Finding]:
    highest = overview.highest
    if highest is None or highest.excess_pct < _MIN_IMBALANCE_PCT:
        return
    yield Finding(
        slug="rank-imbalance",
        severity="warning",
        title=f"Rank {highest.rank} peaks {format_bytes(highest.excess_bytes)} ({highest.excess_pct:.0f} %) "
        f"above rank {highest.median_rank}, the one in the middle",
        evidence={
            "peak_bytes": highest.peak_bytes,
            "median_bytes": highest.median_bytes,
            "median_rank": highest.median_rank,
            "excess_pct": round(highest.excess_pct, 1),
            "by_category": {one.name: one.num_bytes - one.median_bytes for one in highest.by_category},
            "by_module": {one.name: one.num_bytes - one.median_bytes for one in highest.by_module},
            "by_parameters": {one.name: one.num_bytes - one.median_bytes for one in highest.by_parameters},
        },
        change=_how_to_balance(overview, highest),
        cost="None in principle: the memory that other ranks have left is not used now.",
        saves_bytes=None,
        saves_ns=None,
        new_peak_bytes=None,
        rank=highest.rank,
        where=None,
    )


def _how_to_balance(overview: RanksResult, highest: Outlier) -> str:
    """Return what to change, by what most of the difference is."""
    more = [one for one in highest.by_category if one.num_bytes > one.median_bytes]
    category = Category(more[0].name) if more else Category.UNKNOWN
    said = f"Most of it is {category_words(category.value)}"
    if category in _HELD:
        groups = [one for one in highest.by_parameters if one.num_bytes > one.median_bytes]
        parts = ", ".join(f"{one.name} ({format_bytes(one.num_bytes - one.median_bytes)} more)" for one in groups[:3])
        is_pipeline = any(scheme.kind == "pp" for scheme in overview.schemes)
        how = "give this stage fewer layers" if is_pipeline else "divide evenly what is held here in addition"
        return f"{said}: {how}{f', as of {parts}' if parts else ''}."
    modules = [one for one in highest.by_module if one.num_bytes > one.median_bytes]
    at = f", made in {modules[0].name}" if modules else ""
    if category in (Category.ACTIVATION, Category.INPUT, Category.TEMPORARY):
        return f"{said}{at}: give every rank as many tokens, or this one fewer layers."
    return f"{said}{at}: see what rank {highest.rank} does that rank {highest.median_rank} does not."


def _copies(overview: RanksResult, of_ranks: Sequence[Finding]) -> Iterator[Finding]:
    """Yield one piece of advice to share out copies: that of the rank which it helps most, with what ZeRO saves.

    A rank alone knows only how many there are. Nothing is said where the ranks side by side do not show copies: stages
    of a pipeline, parts that nothing recorded names.
    """
    savings = {one.rank: one for one in overview.savings}
    if not of_ranks:
        yield from _copies_of_shards(overview)
        return
    finding = max(of_ranks, key=lambda one: one.saves_bytes or 0)
    saving = savings.get(-1 if finding.rank is None else finding.rank)
    if saving is None:
        return
    yield dataclasses.replace(
        finding,
        evidence={**finding.evidence, **_evidence(overview, saving)},
        change=f"{finding.change} {_at_step_end(saving)}",
    )


def _copies_of_shards(overview: RanksResult) -> Iterator[Finding]:
    """Yield the advice where no single rank could see it: what it holds is a part, and others hold the same part."""
    rows = {row.rank: row for row in overview.ranks}
    saving = max(overview.savings, key=lambda one: one.zero_3_bytes, default=None)
    if saving is None or overview.copies is None or not any(one.kind in ("fsdp", "tp") for one in overview.schemes):
        return
    if _MIN_SAVING * saving.zero_3_bytes < (rows[saving.rank].peak_bytes or 0):
        return
    yield Finding(
        slug=_COPIES,
        severity="info",
        title=f"Each part of the model's state is on {overview.copies} ranks",
        evidence=_evidence(overview, saving),
        change=f"Divide it over all ranks (a mesh without an axis of copies). {_at_step_end(saving)}",
        cost="Gathering then spans more ranks, which may be on other machines.",
        saves_bytes=None,
        saves_ns=None,
        new_peak_bytes=None,
        rank=saving.rank,
        where=None,
    )


def _evidence(overview: RanksResult, saving: RankSaving) -> dict[str, Any]:
    found: dict[str, Any] = {
        "copies": overview.copies,
        "zero_1_saves_bytes": saving.zero_1_bytes,
        "zero_2_saves_bytes": saving.zero_2_bytes,
        "zero_3_saves_bytes": saving.zero_3_bytes,
    }
    return found | ({"rests_on_inference": True} if overview.savings_inferred else {})


def _at_step_end(saving: RankSaving) -> str:
    """Return what each stage saves at the end of a step, as a sentence."""
    stages = (saving.zero_1_bytes, saving.zero_2_bytes, saving.zero_3_bytes)
    parts = ", ".join(f"{format_bytes(num_bytes)} with ZeRO-{stage}" for stage, num_bytes in enumerate(stages, 1))
    return f"At the end of a step rank {saving.rank} then holds less: {parts}."
