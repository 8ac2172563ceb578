"""`memtrace report` as a user runs it: text, JSON, HTML, and what it refuses."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from tests.builders import snapshot as build_snapshot
from tests.report.contract import check_report

if TYPE_CHECKING:
    import subprocess


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot of one block of 1000 bytes in a segment of 2 MiB."""
    block = {"address": 4096, "size": 1024, "requested_size": 1000, "state": "active_allocated", "frames": []}
    rest = {"address": 5120, "size": 2**21 - 1024, "requested_size": 0, "state": "inactive", "frames": []}
    segment = {"device": 0, "address": 4096, "total_size": 2**21, "allocated_size": 1024, "active_size": 1024}
    segment |= {"requested_size": 1000, "stream": 0, "segment_type": "small", "blocks": [block, rest], "frames": []}
    event = {"stream": 0, "time_us": 10, "frames": []}
    events = [
        {"action": "segment_alloc", "addr": 4096, "size": 2**21} | event,
        {"action": "alloc", "addr": 4096, "size": 1000} | event,
    ]
    path = tmp_path / "snapshot.pickle"
    path.write_bytes(pickle.dumps({"segments": [segment], "device_traces": [events]}))
    return path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(group, ["report", *map(str, args)])


def test_text_says_the_peak(snapshot: Path) -> None:
    result = run(snapshot)
    assert result.exit_code == 0, result.output
    # 1000 bytes are a block of 1024.
    assert "Memory peaks at 1.00 KiB" in result.stdout


def test_json_is_alone_on_stdout(snapshot: Path, tmp_path: Path) -> None:
    result = run(snapshot, "--json", "--html", tmp_path / "report.html")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    check_report(document)
    rank = document["ranks"][0]
    assert (rank["end"]["requested_bytes"], rank["end"]["allocated_bytes"]) == (1000, 1024)
    assert rank["end"]["reserved_bytes"] == rank["max_reserved_bytes"] == 2**21
    assert "Wrote" in result.stderr


def test_html_is_written_once(snapshot: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert "Wrote" in run(snapshot, "--html", path).stdout
    first = path.read_bytes()
    assert b"<html" in first
    refused = run(snapshot, "--html", path)
    assert refused.exit_code == 1
    assert "--force" in refused.output
    assert path.read_bytes() == first
    assert run(snapshot, "--html", path, "--force").exit_code == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["report.html", "snapshot.pickle"]


def test_open_shows_the_page_in_a_browser(snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert run(snapshot, "--open", "--html", tmp_path / "report.html").exit_code == 0
    assert opened == [(tmp_path / "report.html").as_uri()]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(snapshot, "--open").exit_code == 0
    assert len(list(tmp_path.glob("memtrace-*/report.html"))) == 1


def test_a_report_says_what_it_tells_of_a_person(tmp_path: Path) -> None:
    path = build_snapshot().alloc(4096, 512, frames=[("/home/me/loop.py", 3, "train")]).write(tmp_path / "s.pickle")
    told = (
        "Before you share it: it holds the user's name and paths and source lines; "
        "--redact leaves them out, --no-source also files and lines.\n"
    )
    assert run(path).stdout.endswith(told)
    as_json = run(path, "--json")
    assert json.loads(as_json.stdout)
    assert as_json.stderr == told
    for option in ("--redact", "--no-source"):
        shown = run(path, option)
        assert "Before you share" not in shown.output
        assert "TRACE" in shown.output
    assert "loop.py:3" in run(path, "--redact").output
    assert "loop.py" not in run(path, "--no-source").output


def test_a_report_of_nobody_says_nothing_of_it(snapshot: Path) -> None:
    assert "Before you share" not in run(snapshot).output


@pytest.mark.parametrize("place", ["missing/report.html", "."])
def test_html_that_cannot_be_written_is_refused(snapshot: Path, tmp_path: Path, place: str) -> None:
    result = run(snapshot, "--html", tmp_path / place)
    assert result.exit_code == 1
    assert result.output.startswith("error:")


def test_capacity_is_used(snapshot: Path) -> None:
    document = json.loads(run(snapshot, "--json", "--capacity", "24GiB").stdout)
    assert document["ranks"][0]["capacity_bytes"] == 24 * 2**30


def test_a_finding_that_is_asked_for_fails_the_command(tmp_path: Path) -> None:
    path = snapshot_of_oom(tmp_path)
    result = run(path, "--fail-on", "leak", "--fail-on", "oom")
    assert result.exit_code == 3
    assert "Out of memory" in result.stdout
    assert result.stderr.startswith("failed on oom: ")


@pytest.mark.parametrize("condition", ["error", "warning"])
def test_a_severity_that_is_asked_for_includes_what_is_worse(tmp_path: Path, condition: str) -> None:
    assert run(snapshot_of_oom(tmp_path), "--fail-on", condition).exit_code == 3


def test_a_report_without_the_finding_passes(snapshot: Path, tmp_path: Path) -> None:
    result = run(snapshot, *(f"--fail-on={one}" for one in ("oom", "leak", "fragmentation", "warning")))
    assert result.exit_code == 0
    assert run(snapshot_of_oom(tmp_path), "--fail-on", "leak").exit_code == 0


def test_json_stays_alone_on_stdout_when_the_command_fails(tmp_path: Path) -> None:
    result = run(snapshot_of_oom(tmp_path), "--json", "--fail-on", "oom")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["findings"][0]["slug"] == "oom"


def test_a_finding_that_does_not_exist_is_wrong_usage(snapshot: Path) -> None:
    result = run(snapshot, "--fail-on", "leaks")
    assert result.exit_code == 2
    assert "'oom', 'leak'" in result.output


def snapshot_of_oom(folder: Path) -> Path:
    """Return a snapshot in which a request of 1 GiB failed."""
    built = build_snapshot().alloc(1 << 21, 1 << 20).oom(1 << 30, device_free=1 << 20)
    return built.write(folder / "oom.pickle")


def test_capacity_that_is_no_size_is_refused(snapshot: Path) -> None:
    result = run(snapshot, "--capacity", "much")
    assert result.exit_code == 2
    assert "not a size" in result.output


def test_wrong_kind_of_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    result = run(path)
    assert result.exit_code == 1
    assert result.output.startswith("error:")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    assert run(tmp_path / "nothing.json").exit_code == 1


def test_report_of_a_pipe_has_no_escapes(
    snapshot: Path, run_memtrace: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = run_memtrace("report", snapshot)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


def test_the_page_that_was_just_written_is_not_what_to_do_next(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(snapshot.parent)  # The name of the temporary folder may be longer than a line.
    assert " --html report.html" in run(snapshot.name).stdout
    assert " --html report.html" not in run(snapshot.name, "--html", tmp_path / "page.html").stdout


def test_files_are_written_and_named_and_a_section_is_printed_alone(snapshot: Path, tmp_path: Path) -> None:
    card, comment = tmp_path / "card.svg", tmp_path / "comment.md"
    result = run(snapshot, "--card", card, "--markdown", comment, "--section", "memory")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Memory\n")
    assert (card.read_text()[:4], comment.read_text()[:4]) == ("<svg", "### ")
    assert f"Wrote {comment}" in result.stdout
    assert run(snapshot, "--card", tmp_path / "card.png").exit_code == 1
    assert run(snapshot, "--section", "memory", "--full").exit_code == 2
    assert run(snapshot, "--markdown", "-").stdout.startswith("### ")
