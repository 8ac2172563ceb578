"""A comparison of two reports as text and as the JSON document of the contract (`memtrace-diff`, version 1).

In: `Diff`. Out: aligned text, or JSON. Every number is a field of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from memtrace.analysis.results.diff import Diff, NamedDiff, RankDiff, StackDiff, StepDiff
from memtrace.report.drawing.markup import visible
from memtrace.report.json.report import peak_document
from memtrace.report.terminal.columns import aligned
from memtrace.schema.frames import own_frames
from memtrace.schema.names import category_words
from memtrace.units import format_bytes

FORMAT = "memtrace-diff"
VERSION = 1
MAX_ROWS = 10


def diff_json(diff: Diff) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    return orjson.dumps(visible(diff_document(diff)), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def diff_document(diff: Diff) -> dict[str, Any]:
    """Return the document: the main rank's figures at the top, as the contract says, and every rank below `ranks`."""
    main = _rank_document(diff.ranks[0]) if diff.ranks else {"peak": None, "steps": [], "stacks": []}
    return {
        "format": FORMAT,
        "version": VERSION,
        "a": diff.title_a,
        "b": diff.title_b,
        "verdict": diff.verdict,
        "peak": main["peak"],
        "steps": main["steps"],
        "stacks": main["stacks"],
        "ranks": [_rank_document(rank) for rank in diff.ranks],
        "only_in_a": list(diff.only_in_a),
        "only_in_b": list(diff.only_in_b),
    }


def _rank_document(rank: RankDiff) -> dict[str, Any]:
    return {
        "rank": rank.rank,
        "device_a": rank.device_a,
        "device_b": rank.device_b,
        "compares": rank.compares,
        "peak": {
            "a": peak_document(rank.peak_a),
            "b": peak_document(rank.peak_b),
            "delta_by_category": dict(rank.delta_by_category),
        },
        "steps": [_step_document(step) for step in rank.steps],
        "modules": [_named_document(row) for row in rank.modules],
        "stacks": [_stack_document(row) for row in rank.stacks],
    }


def _step_document(step: StepDiff) -> dict[str, Any]:
    return {"step": step.step, "a_bytes": step.a_bytes, "b_bytes": step.b_bytes, "delta_bytes": step.delta_bytes}


def _named_document(row: NamedDiff) -> dict[str, Any]:
    return {"module": row.name, "a_bytes": row.a_bytes, "b_bytes": row.b_bytes, "delta_bytes": row.delta_bytes}


def _stack_document(row: StackDiff) -> dict[str, Any]:
    return {"stack": list(row.frames), "a_bytes": row.a_bytes, "b_bytes": row.b_bytes, "delta_bytes": row.delta_bytes}


def diff_text(diff: Diff) -> str:
    """Return the comparison as text for a terminal."""
    lines = [f"A  {diff.title_a}", f"B  {diff.title_b}", "", diff.verdict]
    for rank in diff.ranks:
        lines += ["", *_rank_lines(rank, named=len(diff.ranks) > 1)]
    for side, names in (("A", diff.only_in_a), ("B", diff.only_in_b)):
        if names:
            lines += ["", f"Only in {side}: {', '.join(names)}."]
    return "\n".join(str(visible(line)).rstrip() for line in lines) + "\n"


def _rank_lines(rank: RankDiff, *, named: bool) -> list[str]:
    heading = ("" if rank.rank is None else f"rank {rank.rank}, ") + rank.device_b
    lines = [heading, ""] if named else []
    lines += _table("", [("peak", rank.peak_a_bytes, rank.peak_b_bytes), *_reserved(rank)])
    lines += ["", *_table("at the peak", [(category(one.name), one.a_bytes, one.b_bytes) for one in rank.categories])]
    if rank.steps:
        lines += ["", *_table("peak of step", [(str(one.step), one.a_bytes, one.b_bytes) for one in rank.steps])]
    if rank.modules:
        rows = [(one.name or "outside any module", one.a_bytes, one.b_bytes) for one in rank.modules]
        lines += ["", *_table("module", rows)]
    if rank.stacks:
        lines += ["", "Stacks that differ at the peak"]
        lines += [line for row in rank.stacks[:MAX_ROWS] for line in _stack_lines(row)]
        lines += _more(len(rank.stacks))
    return lines


def _reserved(rank: RankDiff) -> list[tuple[str, int | None, int | None]]:
    if rank.reserved_a_bytes is None and rank.reserved_b_bytes is None:
        return []
    return [("largest reserved", rank.reserved_a_bytes, rank.reserved_b_bytes)]


def category(name: str | None) -> str:
    """Return what a category is called on screen."""
    return category_words(str(name))


def _table(heading: str, rows: Sequence[tuple[str, int | None, int | None]]) -> list[str]:
    """Return rows with aligned columns: the name, A, B, and B less A."""
    cells = [(heading, "A", "B", "B - A")]
    cells += [(name, size(a), size(b), delta(a, b)) for name, a, b in rows[:MAX_ROWS]]
    return [*aligned(cells), *_more(len(rows))]


def _more(num_rows: int) -> list[str]:
    return [f"  and {num_rows - MAX_ROWS} more"] if num_rows > MAX_ROWS else []


def size(num_bytes: int | None) -> str:
    """Return bytes for a cell, a dash for what was not recorded."""
    return "-" if num_bytes is None else format_bytes(num_bytes)


def delta(a_bytes: int | None, b_bytes: int | None) -> str:
    """Return B less A with its sign; a dash where a side is missing."""
    if a_bytes is None or b_bytes is None:
        return "-"
    return f"{'+' if b_bytes > a_bytes else ''}{format_bytes(b_bytes - a_bytes)}"


def _stack_lines(row: StackDiff) -> list[str]:
    change = delta(row.a_bytes, row.b_bytes)
    frames = own_frames(row.frames)[:3] or ("no stack recorded",)
    return [f"  {change:>11}  {frames[0]}", *(f"  {'':>11}    {frame}" for frame in frames[1:])]
