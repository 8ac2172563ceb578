"""The card as text: twelve lines at most, of a width, readable without colour, with every figure that matters."""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len

from memtrace.analysis.card.card import card_of
from memtrace.analysis.results.card import Card
from memtrace.report.drawing.card_bar import capacity_cell, cells, stretches
from memtrace.report.exchange.card_markdown import card_markdown
from memtrace.report.exchange.card_svg import card_svg
from memtrace.report.terminal.card import MAX_LINES, card_lines, print_card
from memtrace.units import format_bytes
from tests.fake_report import GIB, finding, gpt_rank, gpt_report, hostile_report


def card(*, exception: bool = True, capacity: int | None = 12 * GIB) -> Card:
    """Return the card of a run that died, with as much on it as there is room for."""
    found = {"type": "torch.OutOfMemoryError", "message": "CUDA out of memory. " * 9, "stack": [], "thread": None}
    rank = replace(gpt_rank(), facts={"exception": found, "exit_status": 1} if exception else {})
    report = replace(gpt_report(), ranks=(rank,), findings=(finding(),) * 5, next_commands=("memtrace report x.json",))
    return card_of(report, capacity_bytes=capacity)


def text(one: Card, width: int = 80) -> str:
    return "\n".join(line.plain for line in card_lines(one, width=width))


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("exception", [True, False])
def test_the_card_has_at_most_twelve_lines_none_wider_than_it_may_be(width: int, *, exception: bool) -> None:
    lines = card_lines(card(exception=exception), width=width)
    assert len(lines) <= MAX_LINES
    assert max(cell_len(line.plain) for line in lines) <= width


def test_the_card_says_what_happened_where_bytes_went_and_what_to_change() -> None:
    one = card()
    shown = text(one)
    assert shown.splitlines()[0].startswith(
        "✗ The run died of torch.OutOfMemoryError after step 500: CUDA out of memory."
    )
    assert f"{format_bytes(one.peak_bytes)} of 12.0 GiB (" in shown
    assert f"{format_bytes(one.parts[0].num_bytes)} activations" in shown
    change = next(line for line in shown.splitlines() if line.strip().startswith("1 "))
    saved, new = format_bytes(finding().saves_bytes), format_bytes(finding().new_peak_bytes)
    assert saved in change
    assert new in change
    assert "✓" in change
    assert shown.endswith("next      memtrace report x.json")


def test_a_line_keeps_its_number_where_there_is_no_room_for_the_name_of_its_file() -> None:
    where = {"file": "a/very_long_name_of_a_script.py", "line": 22, "function": "f", "module": None}
    one = card()
    changes = (replace(one.changes[0], name="full recomputation", where=where),)
    shown = text(replace(one, changes=changes))
    change = next(line for line in shown.splitlines() if line.strip().startswith("1 "))
    assert "full recomputation, ver" in change
    assert "…:22 " in change
    long_name = (replace(one.changes[0], name="a name with room for nothing", where=where),)
    assert ":22" not in text(replace(one, changes=long_name))


def test_without_a_capacity_no_column_says_whether_it_fits() -> None:
    one = card_of(replace(gpt_report(), ranks=(replace(gpt_rank(), capacity_bytes=None),), findings=(finding(),)))
    assert "fits" not in text(one)
    assert "✓" not in text(one).replace("✓ Memory", "")


def test_a_bar_has_every_byte_once() -> None:
    one = card()
    assert one.peak_bytes is not None
    assert one.reserved_bytes is not None
    found = {part.kind: 0 for part in stretches(one)}
    for part in stretches(one):
        found[part.kind] += part.num_bytes
    assert found["category"] + found.get("others", 0) + found.get("rounding", 0) == one.peak_bytes
    assert found["idle"] == one.reserved_bytes - one.peak_bytes
    assert sum(found.values()) == one.capacity_bytes


@pytest.mark.parametrize("width", [7, 30, 60])
def test_cells_fill_the_width_and_nothing_of_a_thousandth_is_lost(width: int) -> None:
    found = stretches(card())
    lengths = cells(found, width)
    assert sum(lengths) == width
    assert all(length >= 0 for length in lengths)
    total = sum(part.num_bytes for part in found)
    if width > len(found) * 2:
        assert all(length for part, length in zip(found, lengths, strict=True) if part.num_bytes * 1000 >= total)


def test_piped_into_a_file_of_ascii_it_stays_readable() -> None:
    file = TextIOWrapper(BytesIO(), encoding="ascii")
    print_card(card(), file=file)
    file.seek(0)
    shown = file.read()
    assert shown.startswith("x The run died")
    assert "?" not in shown
    assert "\x1b" not in shown


def test_names_from_files_cannot_act_on_a_terminal() -> None:
    report = hostile_report()
    shown = text(card_of(report))
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_the_device_ends_where_its_bytes_do_in_a_bar_that_goes_beyond_them() -> None:
    one = card()
    assert one.peak_bytes is not None
    small = replace(one, capacity_bytes=one.peak_bytes // 2)
    found = stretches(small)
    total = sum(part.num_bytes for part in found)
    assert capacity_cell(small, found, 60) == 60 * small.capacity_bytes // total
    assert capacity_cell(one, stretches(one), 60) is None
    assert "┃" in text(small)
    assert "┃" not in text(one)


def test_a_picture_has_every_figure_and_loads_nothing() -> None:
    one = card()
    root = ElementTree.fromstring(card_svg(one))
    shown = " ".join(root.itertext())
    change = one.changes[0]
    assert change.new_peak_bytes is not None
    for size in (one.peak_bytes, one.capacity_bytes, change.saves_bytes, change.new_peak_bytes):
        assert format_bytes(size) in shown
    assert one.limits[:60] in shown
    assert not [name for element in root.iter() for name in element.attrib if "href" in name]


def test_a_picture_of_hostile_names_is_still_xml_without_scripts() -> None:
    svg = card_svg(card_of(hostile_report()))
    assert {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()} <= {
        *("svg", "style", "rect", "text"),
    }


def test_markdown_has_every_figure_and_names_stand_in_code() -> None:
    one = card()
    shown = card_markdown(one, title="t.json")
    change = one.changes[0]
    for size in (one.peak_bytes, one.capacity_bytes, change.saves_bytes, change.new_peak_bytes):
        assert format_bytes(size) in shown
    assert "| ✓ |" in shown
    hostile = card_markdown(card_of(hostile_report()), title="<b>")
    outside = re.sub(r"(`+).*?\1", "", hostile)
    assert "<" not in outside
