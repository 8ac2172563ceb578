"""The JSON document: the contract's keys, and valid JSON whatever names hold."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import orjson

from memtrace.report.json.plain import plain, plain_fields
from memtrace.report.json.report import report_document, report_json
from tests.fake_report import finding, gpt_report, hostile_report, ranks_report
from tests.report.contract import check_report


def test_documents_follow_the_contract() -> None:
    check_report(json.loads(report_json(gpt_report())))


def test_hostile_names_make_valid_json() -> None:
    for report in (ranks_report(), hostile_report()):
        document = json.loads(report_json(report))
        assert document["verdict"] == report.verdict.encode("utf-8", "replace").decode()


def test_document_holds_the_fields_of_the_results() -> None:
    report = gpt_report()
    document = report_document(report)
    assert document["verdict"] == report.verdict
    assert document["ranks"][0]["peak"]["by_category"] == dict(report.ranks[0].peak.by_category)
    assert len(document["ranks"][0]["steps"]) == len(report.ranks[0].steps)


def test_ranks_written_one_by_one_are_the_document_as_a_whole() -> None:
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    whole = ranks_report()
    for report in (whole, replace(whole, ranks=whole.ranks[:1]), replace(whole, ranks=())):
        assert report_json(report) == orjson.dumps(report_document(report), option=options)


def test_same_report_gives_the_same_bytes() -> None:
    assert report_json(gpt_report()) == report_json(gpt_report())


def test_results_stand_under_the_names_of_their_fields() -> None:
    one_finding = finding()
    shown = plain({"findings": (one_finding,), "name": "a\udc80b"})
    assert shown["name"] == "a?b"
    assert list(shown["findings"][0]) == [one.name for one in fields(one_finding)]
    assert plain_fields(one_finding, without=("cost",)).keys() == shown["findings"][0].keys() - {"cost"}
