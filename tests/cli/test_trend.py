"""`memtrace trend`, and `diff` of more than two: runs in the order of their time, each with its figures."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from memtrace.analysis.asked.trend import trend
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from memtrace.cli import group
from memtrace.report.answers.trend import trend_json
from memtrace.report.page.trend import render_trend
from memtrace.store.reading.read import read_trace
from tests.allocator.simulated import write_snapshot
from tests.fake_report import gpt_report

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three snapshots, of 40, 12 and 26 MiB, a file that is none, and a note."""
    for name, size in (("a", 40), ("b", 12), ("c", 26)):
        write_snapshot(tmp_path / f"{name}.pickle", size * MIB)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "notes.txt").write_text("batch size 8")
    return tmp_path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(group, list(map(str, args)))


def test_each_trace_is_a_run_with_its_peak_and_the_change_from_the_one_before(folder: Path) -> None:
    document = json.loads(run("trend", folder, "--json").stdout)
    assert (document["format"], document["version"], document["compares"]) == ("memtrace-trend", 1, "allocated")
    assert [Path(one["title"]).name for one in document["runs"]] == ["a.pickle", "b.pickle", "c.pickle"]
    assert [one["peak_bytes"] // MIB for one in document["runs"]] == [40, 12, 26]
    assert [one["change_bytes"] for one in document["runs"]] == [None, -28 * MIB, 14 * MIB]
    (unread,) = document["unread"]
    assert "broken.json" in unread
    assert document["verdict"].startswith("Over 3 runs the peak falls, from 40.0 MiB to 26.0 MiB (-35.0 %); most with")


def test_runs_are_ordered_by_time(folder: Path) -> None:
    reports = [analyze(read_trace([folder / f"{name}.pickle"])) for name in "abc"]
    later = [_moved(report, by) for report, by in zip(reports, (30, 10, 20), strict=True)]
    found = trend(later, title="x", by_time=True)
    assert [Path(one.title).name[0] for one in found.runs] == ["b", "c", "a"]
    assert [Path(one.title).name[0] for one in trend(later, title="x").runs] == ["a", "b", "c"]


def _moved(report: Report, seconds: int) -> Report:
    """Return a report of a run that was recorded so many seconds later."""
    (rank,) = report.ranks
    assert rank.timeline is not None
    moved = replace(rank.timeline, time_ns=rank.timeline.time_ns + seconds * 10**9)
    return replace(report, ranks=(replace(rank, timeline=moved, steps=()),))


def test_more_than_two_traces_are_put_in_a_row_by_diff(folder: Path) -> None:
    result = run("diff", *(folder / f"{name}.pickle" for name in "bca"))
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if ".pickle" in line and line.startswith("  ")]
    assert ["12.0 MiB" in rows[0], "+14.0 MiB" in rows[1], "40.0 MiB" in rows[2]] == [True] * 3


@pytest.mark.parametrize("command", ["trend", "diff"])
def test_page_and_markdown_hold_exact_figures_and_no_markup_of_the_input(folder: Path, command: str) -> None:
    os.rename(folder / "a.pickle", folder / "<b>`.pickle")
    traces = [folder] if command == "trend" else [folder / "<b>`.pickle", folder / "b.pickle", folder / "c.pickle"]
    page, comment = folder / "page.html", folder / "comment.md"
    result = run(command, *traces, "--html", page, "--markdown", comment)
    assert result.exit_code == 0, result.output
    shown = page.read_text(encoding="utf-8")
    assert f'data-bytes="{40 * MIB}"' in shown
    assert "<b>" not in shown
    assert "40.0 MiB" in comment.read_text(encoding="utf-8")
    assert run(command, *traces, "--html", page).exit_code == 1


def test_diff_of_two_as_markdown(folder: Path) -> None:
    shown = run("diff", folder / "b.pickle", folder / "a.pickle", "--markdown", "-").stdout
    assert shown.startswith("### memtrace diff: `The peak rises from 12.0 MiB to 40.0 MiB, +233.3 %")
    assert "| `peak, allocated` | 12.0 MiB | 40.0 MiB | +28.0 MiB |" in shown
    both = run("diff", folder / "b.pickle", folder / "a.pickle", "--markdown", "-", "--json")
    assert both.exit_code == 2


def test_a_folder_without_traces_is_an_error_with_a_hint(tmp_path: Path) -> None:
    result = run("trend", tmp_path)
    assert result.exit_code == 1
    assert "no trace in it can be read" in result.stderr


@pytest.mark.parametrize("option", ["--redact", "--no-source"])
def test_redacted_runs_have_no_names(folder: Path, option: str) -> None:
    shown = run("trend", folder, option, "--json").stdout
    assert not [name for name in ("a.pickle", "broken", str(folder)) if name in shown]


def test_the_memory_of_all_runs_lies_on_one_axis(tmp_path: Path) -> None:
    report, other = gpt_report(), gpt_report()
    shorter = replace(other.ranks[0], steps=other.ranks[0].steps[:2])
    found = trend([report, replace(other, ranks=(shorter,))], title="x")
    curves = [run.curve for run in found.runs]
    # The end of a step is the next number.
    assert [None if one is None else int(one.steps[-1]) for one in curves] == [500 + 1, 2 + 1]
    page = render_trend(found)
    paths = re.findall(r'<path class="side-(\d)" d="([^"]*)"', page)
    assert [at for at, _ in paths] == ["0", "1"]
    # The first run did not record steps 4 to 499: its curve begins anew after them.
    assert [path.count("M") for _, path in paths] == [2, 1]
    assert ".side-1 { --color" in page
    assert "curve" not in json.loads(trend_json(found))["runs"][0]


def test_one_run_alone_has_no_overlay() -> None:
    assert 'id="curves"' not in render_trend(trend([gpt_report()], title="x"))
