"""`memtrace check` as a build server runs it: exit codes, text, JSON, JUnit and Markdown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from memtrace.analysis.results.check import Budget, BudgetResult, Check
from memtrace.analysis.results.report import Note, StackRow
from memtrace.cli import group
from memtrace.report.answers.check import check_text
from memtrace.report.exchange.junit import check_junit, check_markdown
from tests.allocator.simulated import write_snapshot
from tests.fake_report import HOSTILE

MIB = 1 << 20


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two snapshots, of 40 and of 42 MiB."""
    return write_snapshot(tmp_path / "main.pickle", 40 * MIB), write_snapshot(tmp_path / "<b>|`b`.pickle", 42 * MIB)


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(group, ["check", *map(str, args)])


def test_exit_codes_tell_passed_failed_error_and_wrong_usage_apart(pair: tuple[Path, Path]) -> None:
    main, branch = pair
    assert run(branch, "--budget", "peak=42MiB", "--budget", "reserved<1GiB").exit_code == 0
    assert run(branch, "--budget", "peak<42MiB").exit_code == 3
    assert run(branch, "--baseline", main, "--tolerance", "5%").exit_code == 0
    assert run(branch, "--baseline", main, "--tolerance", "4.9%").exit_code == 3
    assert run(branch, "--baseline", main).exit_code == 3
    refused = run(branch, "--budget", "steady_peak=1GiB")
    assert refused.exit_code == 1
    assert "steady_peak of cuda:0 is not known" in refused.stderr
    for wrong in (
        ["--budget", "pick=1GiB"],
        [],
        ["--budget", "peak=1GiB", "--gate", "activation"],
        ["--tolerance", "2%"],
        ["--baseline", main, "--tolerance", "-1%"],
    ):
        assert run(branch, *wrong).exit_code == 2, wrong


def test_json_is_that_of_the_contract(pair: tuple[Path, Path]) -> None:
    result = run(pair[1], "--budget", "peak<40MiB", "--budget", "end=42MiB", "--baseline", pair[0], "--json")
    document = json.loads(result.stdout)
    assert (document["format"], document["version"], document["passed"]) == ("memtrace-check", 1, False)
    keys = ("expression", "value_bytes", "limit_bytes", "passed")
    assert [tuple(one[key] for key in keys) for one in document["budgets"]] == [
        (f"peak<{40 * MIB}", 42 * MIB, 40 * MIB, False),
        (f"end<={42 * MIB}", 42 * MIB, 42 * MIB, True),
    ]
    peak = document["baseline"]["changes"][0]
    assert (peak["name"], peak["delta_bytes"], peak["limit_bytes"]) == ("peak", 2 * MIB, round(40 * MIB / 100))


def test_junit_and_markdown_are_written_and_not_overwritten(pair: tuple[Path, Path], tmp_path: Path) -> None:
    junit, markdown = tmp_path / "memory.xml", tmp_path / "comment.md"
    files = ["--junit", junit, "--markdown", markdown]
    ask = [pair[1], "--budget", "peak<40MiB", "--budget", "end=42MiB", "--baseline", pair[0], "--tolerance", "5%"]
    assert run(*ask, *files).exit_code == 3
    suite = ElementTree.parse(junit).getroot()[0]
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert failed == {"peak < 40.0 MiB"}
    assert (suite.get("tests"), suite.get("failures")) == (str(len(suite)), "1")
    text = markdown.read_text(encoding="utf-8")
    assert "### memtrace check: failed, 1 of 2 budgets, SAME: peak 40.0 MiB to 42.0 MiB (+5.0 %)\n" in text
    assert "| **FAILED** | `peak < 40.0 MiB` | 42.0 MiB | `2.00 MiB over` |\n" in text
    assert "| ok | `peak, cuda:0` | 40.0 MiB | 42.0 MiB | +2.00 MiB |\n" in text
    assert "\nTrace: ``" in text
    assert run(*ask, *files).exit_code == 1
    assert run(*ask, *files, "--force").exit_code == 3


@pytest.mark.parametrize("text", [*HOSTILE, "a|b`c``d\n\n# heading", "\ufffe & ]]>", "@everyone", "`"])
def test_names_out_of_a_file_act_nowhere(text: str) -> None:
    row = StackRow(
        frames=(f"{text}.py:1 f",), num_bytes=2, num_allocations=1, category="unknown", by_category={"unknown": 2}
    )
    one = BudgetResult(
        budget=Budget(name="peak", is_strict=False, limit_bytes=1),
        passed=False,
        value_bytes=2,
        exact_bytes=None,
        measures="allocated",
        rank=0,
        device=text,
        num_ranks=2,
        num_over=2,
        predicted=False,
        low_bytes=None,
        high_bytes=None,
        largest=(row,),
    )
    notes = (Note(slug="gaps", message=text),)
    made = Check(title=text, passed=False, budgets=(one,), baseline=None, problems=(text,), notes=notes)
    assert "\x1b" not in check_text(made)
    suite = ElementTree.fromstring(check_junit(made).encode("utf-8"))[0]
    assert len(suite) == 2
    for line in check_markdown(made).splitlines():
        assert not line.startswith("# ")
        outside = without_code(line)
        assert "<" not in outside
        assert "@" not in outside
        assert "heading" not in outside
        if line.startswith("| **"):
            assert line.replace("\\|", "").count("|") == 5


def without_code(line: str) -> str:
    """Return a line of Markdown without its code spans, each of which ends at as many ticks as it begins with."""
    kept, at = [], 0
    while at < len(line):
        if line[at] != "`":
            kept.append(line[at])
            at += 1
            continue
        ticks = len(line[at:]) - len(line[at:].lstrip("`"))
        end = at + ticks
        while True:
            end = line.index("`", end)
            run_length = len(line[end:]) - len(line[end:].lstrip("`"))
            end += run_length
            if run_length == ticks:
                break
        at = end
    return "".join(kept)


def test_a_reader_that_goes_away_changes_neither_the_files_nor_the_exit_code(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    comment = tmp_path / "comment.md"
    command = [sys.executable, "-m", "memtrace", "check", pair[1], "--baseline", pair[0], "--markdown", comment]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (3, "")
    assert "WORSE: peak 40.0 MiB to 42.0 MiB" in comment.read_text(encoding="utf-8")
