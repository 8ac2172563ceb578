"""`memtrace diff` as a user runs it: text, JSON, the page, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from tests.allocator.simulated import write_snapshot

MIB = 1 << 20


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two snapshots, of 12 and of 40 MiB."""
    return write_snapshot(tmp_path / "a.pickle", 12 * MIB), write_snapshot(tmp_path / "<b>.pickle", 40 * MIB)


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(group, ["diff", *map(str, args)])


def test_text_says_by_how_much_the_peak_moved(pair: tuple[Path, Path]) -> None:
    result = run(*pair)
    assert result.exit_code == 0, result.output
    assert "The peak rises from 12.0 MiB to 40.0 MiB, +233.3 %: mostly +28.0 MiB" in result.stdout
    assert "largest reserved" in result.stdout


def test_json_is_that_of_the_contract(pair: tuple[Path, Path]) -> None:
    document = json.loads(run(*pair, "--json").stdout)
    assert (document["format"], document["version"]) == ("memtrace-diff", 1)
    assert set(document["peak"]) == {"a", "b", "delta_by_category"}
    assert document["peak"]["b"]["allocated_bytes"] - document["peak"]["a"]["allocated_bytes"] == 28 * MIB
    assert sum(document["peak"]["delta_by_category"].values()) == 28 * MIB
    assert all(set(row) == {"step", "a_bytes", "b_bytes", "delta_bytes"} for row in document["steps"])
    assert all({"stack", "delta_bytes"} <= set(row) for row in document["stacks"])


def test_the_page_holds_exact_bytes_and_no_markup_of_the_input(pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    result = run(*pair, "--html", page)
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert f'data-bytes="{28 * MIB}"' in text
    assert "&lt;b&gt;.pickle" in text
    assert "<b>" not in text


def test_an_existing_page_is_kept(pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    page.write_text("mine")
    refused = run(*pair, "--html", page)
    assert refused.exit_code == 1
    assert page.read_text() == "mine"
    assert run(*pair, "--html", page, "--force").exit_code == 0
