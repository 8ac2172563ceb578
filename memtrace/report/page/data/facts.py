"""Facts of a recording as pairs of name and text; the suffix of a name says what unit a number has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from memtrace.analysis.results.report import RankReport
from memtrace.units import format_bytes, format_ns


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


def fact_name(name: str) -> str:
    """Return the name of a fact without its unit.

    >>> fact_name("peak_host_rss_bytes")
    'peak host rss'
    """
    return re.sub(r"_(bytes|ns)$", "", name).replace("_", " ")


def fact_text(name: str, value: Any) -> str:
    """Return a fact for people; the suffix of its name says whether it is bytes or ns."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and (name.endswith("_bytes") or name.startswith("bytes_")):
        return format_bytes(value)
    if isinstance(value, int) and name.endswith("_ns") and value < 10**15:
        return format_ns(value)
    if isinstance(value, Mapping):
        # The unit of a mapping is that of what is in it, as in {"by_category_bytes": {"gradient": 12}}.
        unit = "_bytes" if name.endswith("_bytes") else ""
        return ", ".join(f"{fact_name(str(key))} {fact_text(f'{key}{unit}', item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return (
            " ".join(str(item) for item in value)
            if name.endswith("command")
            else ", ".join(str(item) for item in value)
        )
    return str(value)
