"""The answer of a bisection as text and as a JSON document (`memtrace-bisect`, version 1).

In: `Bisected`. Out: text, or JSON. Every number shown is a field of it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from memtrace.forecast.bisecting.results import Bisected, ChangedLine, Commit
from memtrace.report.answers.diff import diff_document, diff_text
from memtrace.report.drawing.markup import visible
from memtrace.units import format_bytes

FORMAT = "memtrace-bisect"
VERSION = 1
_SHORT = 12


def bisect_json(found: Bisected) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "metric": found.metric,
        "threshold_bytes": found.threshold_bytes,
        "engine": found.engine,
        "gpu": found.gpu,
        "num_commits": found.num_commits,
        "good": asdict(found.good),
        "bad": asdict(found.bad),
        "guilty": asdict(found.guilty) if not found.suspects else None,
        "suspects": [asdict(one) for one in (*found.suspects, *([found.guilty] if found.suspects else []))],
        "lines": [asdict(one) for one in found.lines],
        "measured": [asdict(one) for one in found.measured],
        "diff": diff_document(found.diff),
    }
    return orjson.dumps(visible(document), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def bisect_text(found: Bisected) -> str:
    """Return the answer as text for a terminal."""
    before, after = format_bytes(found.good.num_bytes or 0), format_bytes(found.bad.num_bytes or 0)
    lines = []
    if found.suspects:
        lines.append(f"One of these raised {found.metric} from {before} to {after}; the others cannot be predicted:")
        lines += [f"  {_named(one)}" for one in (*found.suspects, found.guilty)]
    else:
        lines.append(f"{_named(found.guilty)}")
        lines.append(f"raised {found.metric} from {before} to {after} (bad is above {_threshold(found)}).")
    lines += [f"  {_line(one)}" for one in found.lines]
    lines += ["", *_how(found), "", diff_text(found.diff).rstrip("\n")]
    return "\n".join(str(visible(line)) for line in lines) + "\n"


def _threshold(found: Bisected) -> str:
    return format_bytes(found.threshold_bytes)


def _named(commit: Commit) -> str:
    return f"{commit.name[:_SHORT]} {commit.subject}"


def _line(one: ChangedLine) -> str:
    return f"{one.path}:{one.line} in {one.function}: {format_bytes(one.delta_bytes)} more, by a line of the change"


def _how(found: Bisected) -> list[str]:
    failed = [one for one in found.measured if one.problem]
    said = f"{len(found.measured)} of {found.num_commits} commits predicted, engine {found.engine}, as on {found.gpu}"
    return [
        f"{said} with memory without end.",
        *(f"  {one.commit[:_SHORT]} was passed by: {one.problem}" for one in failed),
    ]
