"""The top of the page as markup, before any script: what happened, the peak against the capacity, what to change."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest

from memtrace.analysis.card.card import card_of
from memtrace.analysis.results.report import Report
from memtrace.report.drawing.card_bar import stretches
from memtrace.report.page.front import description, front, verdict_markup
from memtrace.report.page.report import render_html
from memtrace.units import format_bytes
from tests.fake_report import HOSTILE, finding, gpt_report, hostile_report

MIB = 2**20


def carded(report: Report, *, capacity: int | None = None) -> Report:
    """Return a report with its card."""
    return replace(report, card=card_of(report, capacity_bytes=capacity))


def before_script(page: str) -> str:
    """Return what a browser shows of a page without scripts, as text."""
    body = page[page.index("<body>") : page.index("<script")]
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def test_verdict_categories_and_changes_stand_before_any_script() -> None:
    advice = (replace(finding(), slug="logits-dominate", saves_bytes=512 * MIB, new_peak_bytes=9 * 1024 * MIB),)
    report = carded(replace(gpt_report(), findings=advice))
    assert report.card is not None
    shown = before_script(render_html(report))
    assert report.verdict in shown
    for one in stretches(report.card):
        assert re.search(rf"{re.escape(format_bytes(one.num_bytes))}\s+{re.escape(one.label)}", shown)
    assert [change.slug for change in report.card.changes] == ["logits-dominate"]
    for change in report.card.changes:
        row = re.escape(change.name) + r".*?" + re.escape(format_bytes(change.saves_bytes))
        assert re.search(row + r".*?" + re.escape(format_bytes(change.new_peak_bytes)), shown, re.DOTALL)
    assert "✓ fits" in shown


def test_a_bar_beyond_the_capacity_says_where_that_ends() -> None:
    fitting, failing = (front(carded(gpt_report(), capacity=capacity)) for capacity in (12 << 30, 5 << 30))
    assert "bar-end" not in fitting
    place = re.search(r'class="bar-end" style="left:([\d.]+)%"', failing)
    assert place is not None
    card = carded(gpt_report(), capacity=5 << 30).card
    assert card is not None
    total = sum(one.num_bytes for one in stretches(card))
    assert float(place[1]) == pytest.approx(100 * (5 << 30) / total, abs=0.01)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_of_a_trace_is_markup(hostile: str) -> None:
    where = {"file": hostile, "line": 3, "function": hostile}
    advice = (replace(finding(), title=hostile, change=hostile, cost=hostile, where=where, saves_bytes=1),)
    report = carded(replace(hostile_report(), findings=advice, verdict=hostile, title=hostile))
    page = render_html(report)
    assert hostile not in page
    assert page.count("<script") == 3
    assert "<img" not in page


def test_a_preview_has_title_and_description() -> None:
    advice = (replace(finding(), slug="logits-dominate", saves_bytes=512 * MIB),)
    report = carded(replace(gpt_report(), findings=advice))
    page = render_html(report)
    said = {
        name: html.unescape(content)
        for name, content in re.findall(r'<meta (?:name|property)="([\w:]+)" content="([^"]*)"', page)
    }
    assert said["og:title"] == report.verdict
    assert said["og:description"] == said["description"] == description(report)
    assert "saves 512 MiB" in said["description"]
    assert f"<title>{report.title} – memtrace</title>" in page


def test_a_report_without_a_card_has_no_front() -> None:
    assert front(gpt_report()) == ""
    assert description(gpt_report()) == gpt_report().verdict


def test_what_the_card_says_first_stands_out_and_nothing_of_the_verdict_is_lost() -> None:
    report = carded(gpt_report())
    assert report.card is not None
    head = report.card.headline.rstrip(".")
    for verdict in (f"{head}; 63 % <activations>. And more.", f"{head}.", "Something else."):
        markup = verdict_markup(replace(report, verdict=verdict))
        assert html.unescape(re.sub(r"</?span[^>]*>", "", markup)) == verdict
        assert ('<span class="rest">' in markup) == (";" in verdict)
