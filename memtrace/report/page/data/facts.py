"""Facts of a recording as pairs of name and text; the suffix of a name says what unit a number has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memtrace.analysis.results.report import RankReport
from memtrace.report.drawing.facts import fact_name, fact_text
from memtrace.units import format_bytes


def facts_view(rank: RankReport) -> list[list[str]]:
    """Return header facts as pairs of name and text, nested ones with joined names, in the order given."""
    facts = [["device", rank.device], ["capacity", format_bytes(rank.capacity_bytes)]]
    _flatten("", rank.facts, facts)
    return facts


def _flatten(prefix: str, value: Any, facts: list[list[str]]) -> None:
    if isinstance(value, Mapping) and " · " in prefix:
        # Deep down (options of an optimizer) one line says it all.
        texts = [
            f"{fact_name(str(key))} {fact_text(str(key), item)}" for key, item in value.items() if item is not None
        ]
        facts.append([fact_name(prefix), ", ".join(texts)])
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _flatten(f"{prefix} · {key}" if prefix else str(key), item, facts)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        for index, item in enumerate(value):
            _flatten(f"{prefix} {index + 1}", item, facts)
    elif value is not None and value not in ("", [], ()):
        facts.append([fact_name(prefix), fact_text(prefix, value)])
