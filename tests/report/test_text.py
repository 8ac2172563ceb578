"""The report in a terminal: what it says, that it fits, and that no name can steer the terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from memtrace.report.text import print_report, render_text
from memtrace.units import format_bytes
from tests.fake_report import gpt_report, hostile_report, out_of_memory, ranks_report


def test_verdict_comes_first() -> None:
    report = gpt_report()
    lines = [line.strip() for line in render_text(report).splitlines() if line.strip()]
    assert lines[1].startswith(report.verdict[:40])


def test_unattributed_bytes_have_a_row_of_their_own() -> None:
    report = gpt_report()
    rows = [line for line in render_text(report).splitlines() if line.strip().startswith("unattributed")]
    assert len(rows) == 1
    assert format_bytes(report.ranks[0].peak.by_category["unknown"]) in rows[0]


def test_first_step_and_steady_state_are_shown() -> None:
    text = render_text(gpt_report())
    assert "peak of step 1" in text
    assert "steady-state peak" in text


@pytest.mark.parametrize("width", [80, 88, 100])
def test_lines_fit_the_width(width: int) -> None:
    for report in (gpt_report(), ranks_report(), hostile_report()):
        assert max(map(len, render_text(report, width=width).splitlines())) <= width


def test_unrecorded_steps_are_one_row() -> None:
    text = render_text(gpt_report())
    assert "4 to 499" in text
    assert len(text.splitlines()) < 90


def test_names_cannot_steer_the_terminal() -> None:
    text = render_text(hostile_report())
    assert "\x1b" not in text
    assert all(char.isprintable() or char == "\n" for char in text)


def test_markup_in_names_is_shown_as_it_is() -> None:
    assert "[bold]x[/bold] :smile:" in render_text(replace(gpt_report(), verdict="[bold]x[/bold] :smile:"))


def test_out_of_memory_is_told() -> None:
    report = gpt_report()
    failed = replace(report, ranks=(replace(report.ranks[0], oom=out_of_memory()),))
    text = render_text(failed)
    assert "Out of memory" in text
    assert "largest free block" in text


def test_several_ranks_start_with_a_table() -> None:
    text = render_text(ranks_report(4))
    assert text.index("Ranks") < text.index("Memory")
    assert all(f"rank {rank}" in text for rank in range(4))


def test_pipe_gets_no_colour() -> None:
    file = io.StringIO()
    print_report(gpt_report(), file=file)
    assert "\x1b" not in file.getvalue()
    assert file.getvalue() == render_text(gpt_report())


def test_terminal_that_knows_ascii_only_gets_text() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    print_report(hostile_report(), file=file)
    file.flush()
    assert b"unattributed" in raw.getvalue()
