"""The report in a terminal: what it says, that it fits, and that no name can steer the terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from memtrace.analysis.card.card import card_of
from memtrace.analysis.results.report import ActivationPart, ActivationSplit, FirstStepEffect, Report
from memtrace.errors import MemtraceError
from memtrace.report.terminal.card import card_lines
from memtrace.report.terminal.report import MAX_LINES, print_report, render_text
from memtrace.report.terminal.sections import NAMES, sections_of
from memtrace.units import format_bytes
from tests.fake_report import MIB, finding, gpt_report, hostile_report, out_of_memory, ranks_report


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
    print_report(gpt_report(), file=file, full=True)
    assert "\x1b" not in file.getvalue()
    assert file.getvalue() == render_text(gpt_report())


def test_terminal_that_knows_ascii_only_gets_text() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    print_report(hostile_report(), file=file, full=True)
    file.flush()
    assert b"unattributed" in raw.getvalue()


def test_sections_stand_in_the_order_in_which_they_are_read() -> None:
    report = replace(gpt_report(), findings=(finding(),), next_commands=("memtrace report t.json --html r.html",))
    text = render_text(report)
    headings = [report.verdict[:20], "Memory", "At the peak", "Steps", "Not seen", "What to change", "Next"]
    places = [text.index(f"{heading}") for heading in headings]
    assert places == sorted(places)
    assert text.rstrip().endswith("memtrace report t.json --html r.html")


def test_a_finding_is_told_with_its_figures_its_line_and_its_cost() -> None:
    one = finding()
    text = " ".join(render_text(replace(gpt_report(), findings=(one,))).split())
    for part in (
        f"1. {one.title} [{one.slug}]",
        f"saves {format_bytes(one.saves_bytes)}, new peak {format_bytes(one.new_peak_bytes)}",
        "where model.py:141 loss, in head",
        f"evidence logits {format_bytes(one.evidence['logits_bytes'])}, copies 2",
        f"change {one.change}",
        f"cost {one.cost}",
    ):
        assert part in text


def test_five_findings_are_shown_and_the_others_counted() -> None:
    findings = tuple(replace(finding(), title=f"finding number {number}") for number in range(8))
    text = render_text(replace(gpt_report(), findings=findings))
    assert [f"finding number {number}" in text for number in range(8)] == [True] * 5 + [False] * 3
    assert "and 3 more" in text
    assert "more: --html" not in render_text(replace(gpt_report(), findings=findings[:5]))


def test_exact_and_inferred_bytes_of_a_category_stand_apart() -> None:
    report = gpt_report()
    rank = report.ranks[0]
    whole = rank.peak.by_category["activation"]
    peak = replace(rank.peak, exact_by_category={"activation": whole - 3 * MIB})
    text = render_text(replace(report, ranks=(replace(rank, peak=peak),)))
    row = next(line.split() for line in text.splitlines() if line.strip().startswith("activations"))
    assert " ".join(row).startswith(f"activations {format_bytes(whole)} {format_bytes(whole - 3 * MIB)} 3.00 MiB")


def test_columns_without_any_number_are_left_out() -> None:
    report = gpt_report()
    assert "mallocs" in render_text(report)
    steps = tuple(replace(step, num_device_mallocs=None, max_reserved_bytes=None) for step in report.ranks[0].steps)
    text = render_text(replace(report, ranks=(replace(report.ranks[0], steps=steps),)))
    assert "mallocs" not in text
    assert "at its end" in text


def test_activations_and_the_first_step_are_explained() -> None:
    report = gpt_report()

    def part(name: str | None, num_bytes: int) -> ActivationPart:
        return ActivationPart(name=name, num_bytes=num_bytes, exact_bytes=num_bytes, num_allocations=1)

    operators = [part(f"{name}Backward0", (9 - at) * MIB) for at, name in enumerate(("Addmm", "A", "B", "C", "D", "E"))]
    split = ActivationSplit(
        num_bytes=39 * MIB,
        by_role=(part("saved", 30 * MIB), part("output", 9 * MIB)),
        by_module=(),
        by_op=tuple(operators),
        by_microbatch=(part("0", 20 * MIB), part("1", 19 * MIB)),
    )
    effect = FirstStepEffect(
        slug="states-created", title="States\x1b[2J are made", num_bytes=5, stays=True, evidence={}
    )
    rank = replace(
        report.ranks[0],
        activations=split,
        first_step_effects=(effect,),
        steady_minus_first={"optimizer_state": 5 * MIB, "gradient": -2 * MIB, "parameter": 0},
    )
    text = " ".join(render_text(replace(report, ranks=(rank,))).replace("\N{NO-BREAK SPACE}", " ").split())
    assert "kept for backward 30.0 MiB, outputs: logits, loss 9.00 MiB" in text
    assert "Addmm 9.00 MiB, A 8.00 MiB" in text
    assert "1 more 4.00 MiB" in text
    assert "micro-batch 0 20.0 MiB, micro-batch 1 19.0 MiB" in text
    assert "+5.00 MiB" in text
    assert "-2.00 MiB" in text
    assert "+3.00 MiB" in text
    assert "the same States\ufffd[2J are made states-created" in text


def test_what_several_ranks_have_in_common_is_told_once() -> None:
    findings = tuple(replace(finding(), rank=rank, saves_bytes=(9 - rank) * MIB) for rank in range(3))
    elsewhere = replace(finding(), rank=0, where={"file": "other.py", "line": 1, "function": "f", "module": None})
    text = render_text(replace(gpt_report(), findings=(*findings, elsewhere)))
    assert text.count(finding().title) == 2
    assert "ranks     0, 1, 2" in text
    assert "saves     9.00 MiB" in text


@pytest.mark.parametrize("rank", [None, 0])
def test_findings_of_one_rank_stay_apart(rank: int | None) -> None:
    findings = tuple(replace(finding(), rank=rank, title=f"the {name}") for name in ("first", "second", "third"))
    text = render_text(replace(gpt_report(), findings=findings))
    assert "1. the first" in text
    assert "2. the second" in text
    assert "3. the third" in text


def with_card(report: Report) -> Report:
    return replace(report, card=card_of(report))


def busy_report() -> Report:
    """Return a report with much in every section: three findings, an out-of-memory, several ranks."""
    report = replace(
        ranks_report(4), findings=(finding(),) * 7, next_commands=("memtrace report t.json --html r.html",)
    )
    return with_card(report)


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("report", [with_card(gpt_report()), busy_report()], ids=["one", "busy"])
def test_a_report_is_one_screen_unless_more_is_asked_for(report: Report, width: int) -> None:
    brief, full = render_text(report, width=width, full=False), render_text(report, width=width)
    assert brief.count("\n") <= MAX_LINES < full.count("\n")
    assert brief.splitlines()[2] == card_lines(report.card, width=min(80, width))[0].plain
    assert max(map(len, brief.splitlines())) <= width


def test_every_section_that_is_left_out_is_named_and_can_be_had_alone() -> None:
    report = with_card(gpt_report())
    brief = " ".join(render_text(report, full=False).split())
    named = [one.strip() for one in brief.partition("--section with ")[2].split(",")]
    assert "modules" in named
    for name in named:
        file = io.StringIO()
        print_report(report, file=file, names=[name])
        title = next(one.title for one in sections_of(report) if one.name == name)
        assert file.getvalue().startswith(f"{title}\n")


def test_sections_that_are_not_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(MemtraceError, match="no section gpu-time") as caught:
        print_report(with_card(gpt_report()), file=io.StringIO(), names=["gpu-time"])
    assert "memory, categories" in str(caught.value.hint)


def test_every_section_has_a_name_of_the_list() -> None:
    found = {one.name for report in (gpt_report(), busy_report()) for one in sections_of(report)}
    assert found <= set(NAMES)
