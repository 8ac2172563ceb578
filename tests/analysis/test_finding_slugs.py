"""Every finding has its short name in the list that `--fail-on` offers, and a severity of the list."""

from __future__ import annotations

import ast
from pathlib import Path

from memtrace.schema.findings import SEVERITIES, SLUGS

ANALYSIS = Path(__file__).parents[2] / "memtrace/analysis"


def texts_of(keyword: str) -> set[str]:
    """Return the texts that calls of `Finding` are given under a keyword."""
    calls = [
        node
        for path in ANALYSIS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Finding"
    ]
    values = [one.value for call in calls for one in call.keywords if one.arg == keyword]
    values += [branch for value in values if isinstance(value, ast.IfExp) for branch in (value.body, value.orelse)]
    return {value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)}


def test_every_slug_of_a_finding_can_be_failed_on() -> None:
    assert sorted(texts_of("slug")) == sorted(SLUGS)


def test_every_severity_is_known() -> None:
    assert texts_of("severity") <= set(SEVERITIES)
