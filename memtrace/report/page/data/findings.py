"""Notes and advice as a page shows them, with what finds the place of an advice on the map."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from memtrace.analysis.results.report import Finding, Note
from memtrace.report.drawing.facts import evidence_rows, replayed_words
from memtrace.report.page.data.values import View
from memtrace.units import format_bytes, format_ns


def notes_view(notes: Sequence[Note]) -> list[View]:
    """Return what was not seen."""
    return [{"slug": note.slug, "message": note.message, "count": note.count} for note in notes]


def finding_view(finding: Finding) -> View:
    """Return one piece of advice, with its numbers written for people."""
    effects = [("saves", finding.saves_bytes, format_bytes), ("saves", finding.saves_ns, format_ns)]
    effects.append(("new peak", finding.new_peak_bytes, lambda size: format_bytes(size) + replayed_words(finding)))
    where = finding.where or {}
    place = [str(where[key]) for key in ("module", "function") if where.get(key)]
    if where.get("file"):
        place.append(f"{where['file']}:{where['line']}" if where.get("line") else str(where["file"]))
    return {
        "slug": finding.slug,
        "severity": finding.severity,
        "title": finding.title,
        "change": finding.change,
        "cost": finding.cost,
        "effects": [f"{label} {write(value)}" for label, value, write in effects if value is not None],
        "evidence": [list(pair) for pair in evidence_rows(finding.evidence)],
        "where": " · ".join(place),
        "search": _search_words(where),
    }


def _search_words(where: Mapping[str, Any]) -> str | None:
    """Return what finds the allocations of a place on the map: its file and line, else its module; `None` without."""
    file = re.split(r"[/\\]", str(where.get("file") or ""))[-1]
    if file and where.get("line") and not re.search(r"\s", file):
        return f"{file}:{where['line']}"
    module = where.get("module")
    return None if module is None or re.search(r"\s", str(module)) else str(module)
