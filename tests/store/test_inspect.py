"""`memtrace inspect` shows raw records as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from memtrace.cli import group
from memtrace.cli.inspect import inspect
from tests.builders import snapshot

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    built = snapshot().alloc(4096, 9, frames=[(f"{ESCAPE}.py", 1, "</script>")]).alloc(8192, 10)
    return built.write(tmp_path / "snapshot.pickle")


def test_json_has_the_keys_of_the_contract(path: Path) -> None:
    result = CliRunner().invoke(inspect, [str(path), "--head", "1", "--json"])
    document = json.loads(result.stdout)
    assert (document["format"], document["version"]) == ("memtrace-inspect", 1)
    assert document["num_records"]["events"] == 2
    (record,) = document["records"]
    assert (record["action"], record["address"], record["size_bytes"]) == ("alloc", 4096, 9)
    assert record["total_bytes"] is None
    assert document["header"]["ranks"][0]["source"] == "snapshot"


def test_text_neutralises_terminal_escapes(path: Path) -> None:
    result = CliRunner().invoke(inspect, [str(path), "--table", "frames"])
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "owned" in result.stdout


def test_unknown_table_is_an_error_that_names_the_tables(path: Path) -> None:
    result = CliRunner().invoke(group, ["inspect", str(path), "--table", "dreams"])
    assert result.exit_code == 1
    assert "initial_blocks" in result.stderr
