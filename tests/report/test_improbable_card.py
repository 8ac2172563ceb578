"""A card of what nobody expects: names without end, text that turns round, markup, no steps, no capacity, petabytes."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len

from memtrace.analysis.card.card import card_of
from memtrace.analysis.results.card import Card, CardChange, CardPart
from memtrace.analysis.results.report import Report
from memtrace.report.drawing.card_bar import cells, stretches
from memtrace.report.exchange.card_markdown import card_markdown
from memtrace.report.exchange.card_svg import WIDTH as SVG_WIDTH
from memtrace.report.exchange.card_svg import card_svg
from memtrace.report.page.front import description, front, verdict_markup
from memtrace.report.terminal.card import MAX_LINES, card_lines
from memtrace.units import format_bytes
from tests.fake_report import finding, gpt_rank, gpt_report

LONG = "x" * 5000
MANY_WORDS = "very long words without end " * 300
RTL = "\u202eevil\u202c \u0645\u0631\u062d\u0628\u0627"
EMOJI = "👩‍👩‍👧‍👦🔥" * 40
WIDE = "層" * 200
HOSTILE = (
    "</section><script>alert(1)</script><img src=x onerror=alert(1)>\" ' onclick=x & `code` | @everyone \x1b[2J\x07"
)
NAMES = (LONG, MANY_WORDS, RTL, EMOJI, WIDE, HOSTILE, "", " ", "\n\n", "\ud800", "\x00")
PETA = 10**15
SIZES = ((0, None), (1, 1), (PETA, None), (PETA, PETA // 3), (PETA, 10 * PETA), (1, PETA))
"""Peaks and capacities."""


def card(name: str = "model", *, peak: int = PETA, capacity: int | None = None) -> Card:
    """Return a card on which a name stands wherever a name can stand."""
    report = replace(gpt_report(), findings=(finding(),) * 5, next_commands=(f"memtrace report {name}",))
    plain = card_of(report, capacity_bytes=capacity)
    where = {"file": name, "line": 7, "function": name, "module": name}
    change = CardChange(
        slug=name,
        name=name,
        title=name,
        change=name,
        price=name,
        cost=name,
        saves_bytes=peak // 2,
        new_peak_bytes=peak - peak // 2,
        basis="reserved",
        fits=None if capacity is None else peak <= capacity,
        where=where,
    )
    parts = tuple(CardPart(category=one, num_bytes=peak // 7) for one in (name, "activation", "unknown", "a", "b", "c"))
    return replace(
        plain,
        headline=f"The run died: {name}",
        device=name,
        phase=name,
        module=name,
        peak_bytes=peak,
        requested_bytes=6 * (peak // 7),
        capacity_bytes=capacity,
        reserved_bytes=peak,
        parts=parts,
        limits=f"What limits it; {name}.",
        not_seen=name,
        changes=(change,) * 3,
        next_command=f"memtrace report {name}",
    )


CARDS = [
    *(pytest.param(card(name), id=f"name-{at}") for at, name in enumerate(NAMES)),
    *(pytest.param(card(peak=peak, capacity=capacity), id=f"{peak}-of-{capacity}") for peak, capacity in SIZES),
    pytest.param(replace(card(), step=None, phase=None, module=None, rank=None), id="no-step"),
    pytest.param(replace(card(), step=0), id="before-training"),
    pytest.param(replace(card(), parts=(), requested_bytes=None), id="no-parts"),
    pytest.param(replace(card(), changes=(), num_more_changes=0), id="no-changes"),
    pytest.param(replace(card(), peak_bytes=None, device=None, parts=(), requested_bytes=None), id="no-memory"),
]


class Tags(HTMLParser):
    """Collects elements and attributes, and whether each element that is opened is closed in its turn."""

    VOID = frozenset({"img", "br", "input", "meta", "link", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("one", CARDS)
@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_in_a_terminal_it_keeps_to_lines_and_width(one: Card, width: int) -> None:
    lines = [line.plain for line in card_lines(one, width=width)]
    assert 1 <= len(lines) <= MAX_LINES
    for line in lines:
        assert "\n" not in line
        assert all(char.isprintable() for char in line)
        # The command to type next is folded by the terminal and never cut.
        assert cell_len(line) <= width or line.startswith("next")


@pytest.mark.parametrize("one", CARDS)
def test_every_figure_stays_at_every_width(one: Card) -> None:
    text = "\n".join(line.plain for line in card_lines(one, width=60))
    for num_bytes in (one.peak_bytes, *(two.new_peak_bytes for two in one.changes if one.peak_bytes is not None)):
        assert num_bytes is None or format_bytes(num_bytes) in text


@pytest.mark.parametrize("one", CARDS)
def test_the_bar_fills_its_width_whatever_the_sizes(one: Card) -> None:
    found = stretches(one)
    assert all(part.num_bytes > 0 for part in found)
    assert sum(cells(found, 60)) in (0, 60)


@pytest.mark.parametrize("one", CARDS)
def test_the_page_shows_names_as_text_only(one: Card) -> None:
    report: Report = replace(gpt_report(), card=one, verdict=f"{one.headline}. And more.")
    parsed = Tags()
    parsed.feed(front(report) + f"<p>{verdict_markup(report)}</p>")
    parsed.close()
    assert parsed.open == []
    assert not parsed.names & {"script", "img", "iframe", "style"}
    assert not [name for name in parsed.attributes if name.startswith("on") or name in ("src", "href")]
    assert description(report)


@pytest.mark.parametrize("one", CARDS)
def test_the_picture_is_xml_in_which_no_text_runs_out_of_the_frame(one: Card) -> None:
    root = ElementTree.fromstring(card_svg(one).encode("utf-8"))
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "style", "rect", "text"}
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert 0 <= float(box.get("x") or 0) + float(box.get("width") or 0) <= SVG_WIDTH
    for line in root.iter("{http://www.w3.org/2000/svg}text"):
        # Letters of 14 px are 7.5 px wide in the mean; those of East Asia take two such.
        assert float(line.get("x") or 0) + 7.5 * cell_len(line.text or "") <= SVG_WIDTH + 40, line.text


@pytest.mark.parametrize("one", CARDS)
def test_markdown_holds_names_in_code_and_ends_its_lines(one: Card) -> None:
    shown = card_markdown(one, title=one.headline)
    outside = re.sub(r"(`+).*?\1", "", shown)
    assert not re.search(r"[<>@]", outside)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    rows = [line for line in outside.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) <= 1


def test_a_run_without_steps_and_capacity_has_a_card_that_says_so_much() -> None:
    rank = replace(gpt_rank(), steps=(), capacity_bytes=None, first_step_peak=None, steady_state_peak=None)
    rank = replace(rank, peak=replace(rank.peak, step=None, phase=None, module=None), max_reserved_bytes=None)
    one = card_of(replace(gpt_report(), ranks=(rank,), findings=()))
    text = "\n".join(line.plain for line in card_lines(one))
    assert format_bytes(one.peak_bytes) in text
    assert "step" not in text
    assert "fits" not in text
