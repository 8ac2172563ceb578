"""What `memtrace fix` found, as text and as a JSON document (`memtrace-fix`, version 1).

In: `Fixed`. Out: text, or JSON. Every number shown is a field of it.
"""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

import orjson

from memtrace.forecast.fixing.results import Fixed, Measured, Rung
from memtrace.report.answers.fix_code import code_of, environment_of
from memtrace.report.answers.fix_patch import Patch
from memtrace.units import format_bytes

FORMAT = "memtrace-fix"
VERSION = 1
_MOST_REASONS = 6
_LEAST_SHARE = 100
"""A category with less than this part of the peak is not named."""


def fixed_json(found: Fixed, patch: Patch | None = None) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    best = found.best
    document = {
        "format": FORMAT,
        "version": VERSION,
        "command": list(found.command),
        "device": found.device,
        "budget_bytes": found.budget_bytes,
        "target_bytes": found.target_bytes,
        "source": "predicted" if found.is_predicted else "recorded",
        "verified": found.is_verified,
        "fits": best is not None,
        "plain": _needs(found.plain),
        "changes": None if best is None else best.changes.values(),
        "environment": None if best is None else environment_of(best.changes),
        "code": None if best is None else code_of(best.changes, has_statistics=found.program.has_statistics),
        "patch": None if patch is None else patch.text,
        "left_by_patch": None if patch is None else patch.left.values(),
        "rungs": [_rung(one) for one in found.rungs],
        "front": [one.title for one in found.front],
        "missed": [{"changes": one.title, "reason": one.why} for one in found.missed],
        "left_as_they_are": dict(found.refused),
        "smallest_bytes": found.smallest_bytes,
        "notes": list(found.notes),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _rung(rung: Rung) -> dict[str, Any]:
    return {
        "title": rung.title,
        "changes": rung.changes.values(),
        **_needs(rung.needs),
        "slowdown": rung.slowdown,
        "losses_equal": rung.losses_equal,
        "expected_peak_bytes": rung.expected_bytes,
    }


def _needs(needs: Measured) -> dict[str, Any]:
    return {
        "fits": needs.fits,
        "peak_bytes": needs.peak_bytes,
        "reserved_bytes": needs.reserved_bytes,
        "step_s": needs.step_s,
        "by_category": dict(needs.by_category),
    }


def fixed_text(found: Fixed, *, plan: str | None, patch: Patch | None = None) -> str:
    """Return the answer, the ladder and what to do as text for a terminal."""
    lines = [*answer_lines(found), peak_line(found)]
    parts = ["\n".join(line for line in lines if line), "\n".join(_table(found))]
    best = found.best
    if best is not None and not best.changes.is_nothing:
        parts += _to_do(found, best, plan, patch)
    if found.missed:
        parts.append("\n".join(["Did not hold:", *(f"  {one.title}: {one.why}" for one in found.missed)]))
    if found.refused:
        parts.append("\n".join(_reasons(found)))
    parts += [f"Note: {note}" for note in found.notes]
    return "\n\n".join(parts) + "\n"


def answer_lines(found: Fixed) -> list[str]:
    """Return what fits, and what the program needs as it is and so, in a sentence each."""
    size = format_bytes(found.budget_bytes)
    budget = size if size == found.device else f"the {size} that torch can take of the {found.device}"
    plain, best = found.plain, found.best
    how = "predicted" if found.is_predicted else "measured"
    needs = f"The program needs {format_bytes(plain.reserved_bytes)}"
    if best is None:
        smallest = (
            ""
            if found.smallest_bytes is None
            else f"; the smallest that it can do with is {format_bytes(found.smallest_bytes)}"
        )
        return [f"Nothing that may be changed makes it fit in {budget}{smallest}.", f"{needs} as it is ({how})."]
    if best.changes.is_nothing:
        return [f"It fits in {budget} as it is.", f"{needs} ({how})."]
    slower = _slower(best.slowdown)
    if found.target_bytes < found.budget_bytes:
        budget += f", {1 - found.target_bytes / found.budget_bytes:.0%} of it left free,"
    verified = "run so and held" if found.is_verified else "not verified: nothing was run"
    return [
        f"It fits in {budget} with: {best.title}.",
        f"{needs} as it is, and {format_bytes(best.needs.reserved_bytes)} so{slower} ({how}, {verified}).",
    ]


def peak_line(found: Fixed) -> str:
    """Return what the plain program holds at its peak, the largest first; empty where that is not known."""
    held = found.plain.by_category
    least = sum(held.values()) / _LEAST_SHARE
    parts = [f"{name.replace('_', ' ')} {format_bytes(size)}" for name, size in held.items() if size >= least]
    return f"At its peak, as it is: {', '.join(parts)}." if parts else ""


def _slower(slowdown: float | None) -> str:
    if slowdown is None:
        return ""
    return f", {abs(slowdown):.1%} {'slower' if slowdown >= 0 else 'quicker'}"


def _table(found: Fixed) -> list[str]:
    front = {id(one) for one in found.front}
    heads = ["", "changes", "peak", "reserved", "time", "losses", "fits"]
    rows = [heads, *(_cells(one, on_front=id(one) in front) for one in found.rungs)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(heads))]
    lines = [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [f"  {line.rstrip()}" for line in lines] + ["  * no other needs both less memory and less time"]


def _cells(rung: Rung, *, on_front: bool) -> list[str]:
    losses = {None: "", True: "equal", False: "differ"}[rung.losses_equal]
    return [
        "*" if on_front else "",
        rung.title,
        format_bytes(rung.needs.peak_bytes),
        format_bytes(rung.needs.reserved_bytes),
        "" if rung.slowdown is None else f"{rung.slowdown:+.1%}",
        losses,
        "yes" if rung.needs.fits else "no",
    ]


def _to_do(found: Fixed, best: Rung, plan: str | None, patch: Patch | None) -> list[str]:
    parts = []
    if plan is not None:
        command = shlex.join(found.command)
        parts.append(f"Run it so, unchanged:\n  memtrace fix --apply {shlex.quote(plan)} -- {command}")
    if environment := environment_of(best.changes):
        parts.append("\n".join(["Or set:", *(f"  export {name}={value}" for name, value in environment.items())]))
    code = code_of(best.changes if patch is None else patch.left, has_statistics=found.program.has_statistics)
    if patch is not None:
        parts.append(f"And change the program, by `git apply` or `patch -p1`:\n{_indented(patch.text)}")
    if code:
        parts.append(f"And write:\n{_indented(code)}")
    return parts


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _reasons(found: Fixed) -> list[str]:
    """Return why modules are left as they are, the most frequent reasons first."""
    by_reason = Counter(found.refused.values())
    first = {why: name for name, why in reversed(list(found.refused.items()))}
    lines = [f"  {_named(first[why], count)}: {why}" for why, count in by_reason.most_common(_MOST_REASONS)]
    more = len(by_reason) - _MOST_REASONS
    return ["Left as they are:", *lines, *([f"  … and {more} more reasons"] if more > 0 else [])]


def _named(name: str, count: int) -> str:
    return name if count == 1 else f"{name} and {count - 1} more"
