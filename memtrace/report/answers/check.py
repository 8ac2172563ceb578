"""A check as text and as the JSON document of the contract (`memtrace-check`, version 1).

In: `Check`. Out: aligned text, or JSON. Every number is a field of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from memtrace.analysis.results.check import BaselineResult, BudgetResult, ChangeResult, Check
from memtrace.report.drawing.kinds import kinds
from memtrace.report.drawing.markup import visible
from memtrace.report.terminal.columns import aligned
from memtrace.schema.frames import own_frames
from memtrace.schema.names import category_words
from memtrace.units import format_bytes

FORMAT = "memtrace-check"
VERSION = 1


def check_json(check: Check) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    return orjson.dumps(visible(check_document(check)), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def check_document(check: Check) -> dict[str, Any]:
    """Return the document of the contract, with the comparison to a baseline beside the budgets."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "passed": check.passed,
        "title": check.title,
        "budgets": [_budget_document(one) for one in check.budgets],
        "baseline": None if check.baseline is None else _baseline_document(check.baseline),
        "problems": list(check.problems),
        "notes": [{"slug": one.slug, "message": one.message, "count": one.count} for one in check.notes],
    }


def _budget_document(one: BudgetResult) -> dict[str, Any]:
    return {
        "expression": one.budget.expression,
        "name": one.budget.name,
        "value_bytes": one.value_bytes,
        "limit_bytes": one.budget.limit_bytes,
        "passed": one.passed,
        "measures": one.measures,
        "exact_bytes": one.exact_bytes,
        "rank": one.rank,
        "device": one.device,
        "num_ranks": one.num_ranks,
        "num_over": one.num_over,
        "predicted": one.predicted,
        "low_bytes": one.low_bytes,
        "high_bytes": one.high_bytes,
        "stacks": [{"stack": list(row.frames), "num_bytes": row.num_bytes} for row in one.largest],
    }


def _baseline_document(baseline: BaselineResult) -> dict[str, Any]:
    return {
        "title": baseline.title,
        "tolerance_pct": baseline.tolerance_pct,
        "verdict": baseline.verdict,
        "changes": [
            {
                "name": one.name,
                "rank": one.rank,
                "device": one.device,
                "baseline_bytes": one.baseline_bytes,
                "value_bytes": one.value_bytes,
                "delta_bytes": one.delta_bytes,
                "limit_bytes": one.limit_bytes,
                "gates": one.gates,
                "passed": one.passed,
            }
            for one in baseline.changes
        ],
        "stacks": [{"stack": list(one.frames), "delta_bytes": one.delta_bytes} for one in baseline.grown],
    }


def check_text(check: Check) -> str:
    """Return the check as text for a terminal."""
    lines = [f"{check.title}: {verdict(check)}"]
    lines += [f"  {problem}" for problem in check.problems]
    if check.budgets:
        rows = [(mark(one.passed), limit(one), format_bytes(one.value_bytes), remark(one)) for one in check.budgets]
        lines += ["", *aligned([("", "budget", "needs", ""), *rows], text_columns=(0, 1, 3))]
        lines += [line for one in check.budgets for line in _stack_lines(one)]
    if check.baseline is not None:
        lines += ["", *_baseline_lines(check.baseline)]
    if check.notes:
        lines += ["", "Not seen:", *(f"  - {one.message} [{one.slug}]" for one in check.notes)]
    return "\n".join(str(visible(line)).rstrip() for line in lines) + "\n"


def verdict(check: Check) -> str:
    """Return in a few words what came of a check: whether it passed, and how the run stands to its baseline."""
    parts = ["passed" if check.passed else "failed", _out_of("budget", [one.passed for one in check.budgets])]
    if check.baseline is not None:
        parts.append(against(check.baseline))
    return ", ".join(filter(None, parts))


def against(baseline: BaselineResult) -> str:
    """Return BETTER, SAME or WORSE, with the figures that decide: those that grew too much, else the peak."""
    grown = [one for one in baseline.changes if one.gates and not one.passed]
    shown = grown[:3] or [one for one in baseline.changes if one.name == "peak"][:1]
    figures = (f"{category(one.name)} {format_bytes(one.baseline_bytes)} to {_to(one)}" for one in shown)
    return f"{baseline.verdict}: {', '.join(figures)}"


def _to(one: ChangeResult) -> str:
    share = f" ({100 * one.delta_bytes / one.baseline_bytes:+.1f} %)" if one.baseline_bytes else ""
    return f"{format_bytes(one.value_bytes)}{share}"


def _out_of(what: str, passed: Sequence[bool]) -> str:
    failed = len(passed) - sum(passed)
    if not failed:
        return ""
    kind, _, rest = what.partition(" ")
    return f"{failed} of {len(passed)} {kind}{'s' if len(passed) > 1 else ''}{' ' if rest else ''}{rest}"


def mark(passed: bool) -> str:
    """Return the word for a line that passed or failed."""
    return "ok" if passed else "FAILED"


def judged(one: ChangeResult) -> str:
    """Return the word for a figure beside that of the baseline; nothing for one that only informs."""
    return mark(one.passed) if one.gates else ""


def limit(one: BudgetResult) -> str:
    """Return a budget for people."""
    return f"{one.budget.name} {'<' if one.budget.is_strict else '<='} {format_bytes(one.budget.limit_bytes)}"


def remark(one: BudgetResult) -> str:
    """Return what there is to say about the figure: by how much it is over, where, and how sure it is."""
    parts = []
    if not one.passed:
        over = one.value_bytes - one.budget.limit_bytes
        parts.append(f"{format_bytes(over)} over" if over else "at the limit")
    if one.num_ranks > 1:
        parts.append(f"most of {one.num_ranks}: {place(one.rank, one.device)}")
    if one.num_over > 1:
        parts.append(f"{one.num_over} are over")
    if one.predicted:
        ranged = "" if one.low_bytes is None else f", {format_bytes(one.low_bytes)} to {format_bytes(one.high_bytes)}"
        parts.append(f"predicted{ranged}")
    if one.exact_bytes is not None and one.exact_bytes < one.value_bytes:
        inferred = one.value_bytes - one.exact_bytes
        parts.append("inferred" if not one.exact_bytes else f"{format_bytes(inferred)} of it inferred")
    return "; ".join(parts)


def place(rank: int | None, device: str) -> str:
    """Return a rank and device for people."""
    return device if rank is None else f"rank {rank} {device}"


def delta(one: ChangeResult) -> str:
    """Return a change with its sign."""
    return f"{'+' if one.delta_bytes > 0 else ''}{format_bytes(one.delta_bytes)}"


def category(name: str) -> str:
    """Return what a category is called on screen."""
    words = {"steady_peak": "steady-state peak", "leak": "leak a step"}
    return words.get(name) or category_words(name)


def innermost(frames: Sequence[str]) -> str:
    """Return the innermost frame of a stack that is of the program itself."""
    return (own_frames(tuple(frames)) or tuple(frames) or ("no stack recorded",))[0]


def _stack_lines(one: BudgetResult) -> list[str]:
    if not one.largest:
        return []
    rows = [
        f"  {format_bytes(row.num_bytes):>11}  {kinds(row.by_category)}  {innermost(row.frames)}" for row in one.largest
    ]
    return ["", f"Largest at the peak ({one.budget.name}, {place(one.rank, one.device)})", *rows]


def _baseline_lines(baseline: BaselineResult) -> list[str]:
    several = len({(one.rank, one.device) for one in baseline.changes}) > 1
    rows = [
        (
            judged(one),
            category(one.name) + (f" ({place(one.rank, one.device)})" if several else ""),
            format_bytes(one.baseline_bytes),
            format_bytes(one.value_bytes),
            delta(one),
        )
        for one in baseline.changes
    ]
    lines = [f"Against {baseline.title}; what is marked may grow by {baseline.tolerance_pct:g} %", ""]
    lines += aligned([("", "", "baseline", "now", "change"), *rows], text_columns=(0, 1))
    if baseline.grown:
        lines += ["", "Stacks that grew most"]
        lines += [f"  {'+' + format_bytes(one.delta_bytes):>11}  {innermost(one.frames)}" for one in baseline.grown]
    return lines
