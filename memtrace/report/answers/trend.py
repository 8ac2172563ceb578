"""Several runs in a row as text, Markdown and JSON (`memtrace-trend`, version 1).

In: `Trend`. Out: text. Every number is a field of the result.
"""

from __future__ import annotations

from datetime import datetime, timezone

import orjson

from memtrace.analysis.results.trend import Trend, TrendRun
from memtrace.report.drawing.markup import visible
from memtrace.report.json.plain import plain_fields
from memtrace.report.terminal.columns import aligned
from memtrace.units import format_bytes

FORMAT = "memtrace-trend"
VERSION = 1
_BAR = 24
_HEADINGS = ("run", "recorded", "peak", "change", "steady", "reserved", "")


def trend_json(trend: Trend) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    document = {"format": FORMAT, "version": VERSION, **plain_fields(trend, without={"runs"})}
    document["runs"] = [plain_fields(run, without={"curve"}) for run in trend.runs]
    return orjson.dumps(visible(document), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def trend_text(trend: Trend) -> str:
    """Return the runs as text: the verdict, and a line for each with a bar."""
    most = max((one.peak_bytes or 0 for one in trend.runs), default=0)
    rows = [(*cells(one), _bar(one, most)) for one in trend.runs]
    lines = [trend.verdict, "", *aligned([_HEADINGS, *rows], text_columns=(0, 1, 6))]
    lines += ["", f"Peaks are {trend.compares} bytes."] if rows else []
    lines += [f"Not read: {one}" for one in trend.unread]
    return "\n".join(str(visible(line)).rstrip() for line in lines) + "\n"


def cells(run: TrendRun) -> tuple[str, ...]:
    """Return a run as cells: name, time, peak, change, steady state, reserved."""
    when = "-" if run.start_ns is None else _when(run.start_ns)
    change = (
        "-" if run.change_bytes is None else f"{'+' if run.change_bytes > 0 else ''}{format_bytes(run.change_bytes)}"
    )
    return (run.title, when, _size(run.peak_bytes), change, _size(run.steady_bytes), _size(run.reserved_bytes))


def remark(run: TrendRun) -> str:
    """Return in a few words what is the matter with a run: that it died, that it leaks."""
    parts = [{"died": "died", "would-die": "does not fit"}.get(run.outcome, "")]
    parts.append(f"leaks {format_bytes(run.leak_bytes)} a step" if run.leak_bytes else "")
    return "; ".join(part for part in parts if part)


def _bar(run: TrendRun, most: int) -> str:
    length = round(_BAR * (run.peak_bytes or 0) / most) if most else 0
    said = remark(run)
    return "█" * length + (f"  {said}" if said else "")


def _when(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc).strftime("%Y-%m-%d %H:%M")


def _size(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else format_bytes(num_bytes)
