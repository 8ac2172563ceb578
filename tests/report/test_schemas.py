"""The published JSON Schemas hold for documents of every kind of report, and for no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memtrace.analysis.asked.trend import trend
from memtrace.analysis.card.card import card_of
from memtrace.analysis.results.report import Report
from memtrace.parallel.run import report_of
from memtrace.report.answers.fix_patch import Patch
from memtrace.report.answers.fixing import fixed_json
from memtrace.report.answers.trend import trend_json
from memtrace.report.json.report import report_json
from memtrace.schema.changes import Changes
from tests.conftest import ROOT
from tests.document_schemas import validate
from tests.fake_fixed import fixed
from tests.fake_report import finding, gpt_report, out_of_memory, ranks_report

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with the mcp extra")
TRACES = ROOT / "tests/gold/traces"


def documents_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every document that a file of expected answers holds."""
    if isinstance(value, dict) and str(value.get("format")).startswith("memtrace-"):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from documents_in(one)


def made_reports() -> list[Report]:
    rank = replace(gpt_report().ranks[0], oom=out_of_memory())
    reports = [gpt_report(), ranks_report(4), replace(gpt_report(), ranks=(rank,), findings=(finding(),))]
    return [*reports, *(replace(one, card=card_of(one)) for one in reports)]


EXPECTED = sorted(
    path
    for path in (ROOT / "tests/gold").rglob("*.json")
    if re.search(r'"format": "memtrace-(?!report|inspect)', path.read_text(encoding="utf-8"))
)
"""Files of expected answers with a document of another command than `report`."""


@pytest.mark.parametrize("path", EXPECTED, ids=lambda path: path.stem)
def test_answers_of_commands_are_as_the_schemas_say_and_have_no_other_keys(path: Path) -> None:
    documents = list(documents_in(json.loads(path.read_text(encoding="utf-8"))))
    assert documents
    for document in documents:
        name = document["format"].removeprefix("memtrace-")
        if name != "inspect":
            validate(name, document, exactly=name != "report")


def test_every_document_but_those_that_need_a_program_has_an_expected_answer() -> None:
    kinds = {one["format"] for path in EXPECTED for one in documents_in(json.loads(path.read_text(encoding="utf-8")))}
    schemas = {f"memtrace-{path.stem}" for path in (ROOT / "docs/schemas").glob("*.json")}
    assert schemas - kinds == {f"memtrace-{name}" for name in ("report", "trend", "fix", "bisect", "plan-evaluation")}


@pytest.mark.parametrize("report", made_reports(), ids=range(6))
def test_documents_of_made_reports_are_as_the_schema_says(report: Report) -> None:
    validate("report", json.loads(report_json(report)))


@pytest.mark.parametrize("name", ["gpt.json.gz", "ddp.json.gz", "leak.json.gz", "oom-snapshot.pickle"])
def test_documents_of_recordings_are_as_the_schemas_say(name: str) -> None:
    report = report_of([TRACES / name], capacity_bytes=2**30)
    validate("report", json.loads(report_json(report)))
    validate("trend", json.loads(trend_json(trend([report, report], title="x", unread=["y: cut off"]))))


@pytest.mark.parametrize("key", ["verdict", "card", "ranks"])
def test_a_document_that_lacks_a_key_or_has_another_type_is_refused(key: str) -> None:
    document = json.loads(report_json(made_reports()[-1]))
    without = {name: value for name, value in document.items() if name != key}
    for broken in (without, document | {key: 7}):
        with pytest.raises(jsonschema.ValidationError):
            validate("report", broken)


@pytest.mark.parametrize("patch", [None, Patch(text="--- a/x\n", left=Changes(recompute=("blocks.0",)))])
@pytest.mark.parametrize("fits", [True, False])
def test_documents_of_a_search_for_what_fits_are_as_the_schema_says(patch: Patch | None, fits: bool) -> None:
    document = json.loads(fixed_json(fixed(fits=fits), patch))
    validate("fix", document)
    for key in ("plain", "rungs", "patch", "left_by_patch", "missed"):
        with pytest.raises(jsonschema.ValidationError):
            validate("fix", {name: value for name, value in document.items() if name != key})
