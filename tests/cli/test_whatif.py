"""`memtrace whatif` as a user runs it: text, JSON, and what it refuses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from memtrace.allocator.settings import parse_settings
from memtrace.cli import group
from tests.allocator.simulated import Recorder
from tests.warm.start import warm_python

MIB = 1 << 20


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot whose program takes 12 MiB, frees it, and takes 40 MiB."""
    recorder = Recorder(parse_settings(""))
    first = recorder.malloc(12 * MIB)
    assert first is not None
    recorder.free(first)
    recorder.malloc(40 * MIB)
    path = tmp_path / "snapshot.pickle"
    path.write_bytes(pickle.dumps(recorder.snapshot()))
    return path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(group, ["whatif", *map(str, args)])


def test_text_shows_the_proof_and_a_row_a_change(snapshot: Path) -> None:
    result = run(snapshot, "--alloc-conf", "expandable_segments:True", "--capacity", "48MiB", "--capacity", "30MiB")
    assert result.exit_code == 0, result.output
    assert "reproduces 2 of 2 recorded addresses and 2 of 2 segment events" in result.stdout
    assert "expandable_segments:True, 48.0 MiB" in result.stdout
    assert "out of memory at event" in result.stdout


def test_json_is_that_of_the_contract(snapshot: Path) -> None:
    result = run(snapshot, "--json", "--capacity", "45MiB", "--advise")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["format"], document["version"]) == ("memtrace-whatif", 1)
    rank = document["ranks"][0]
    assert set(rank["fidelity"]) == {
        "allocations",
        "allocations_matched",
        "segment_events",
        "segment_events_matched",
        "num_inferred_blocks",
        "first_divergence",
        "replayable",
        "reason",
    }
    first, second, *_ = rank["rows"]
    assert first["name"] == "baseline"
    assert (first["max_reserved_bytes"], first["fits"], first["oom"]) == (52 * MIB, True, None)
    assert (second["name"], second["num_alloc_retries"], second["max_reserved_bytes"]) == ("45.0 MiB", 1, 40 * MIB)


def test_html_beside_json_leaves_json_alone_on_standard_output(snapshot: Path, tmp_path: Path) -> None:
    page = tmp_path / "whatif.html"
    result = run(snapshot, "--capacity", "45MiB", "--json", "--html", page)
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)["ranks"][0]["rows"][1]
    assert row["capacity_bytes"] == 45 * MIB
    assert f"Wrote {page}" in result.stderr
    text = page.read_text(encoding="utf-8")
    assert f'data-bytes="{row["max_reserved_bytes"]}"' in text
    assert "snapshot.pickle" in text


def test_html_overwrites_only_when_told(snapshot: Path, tmp_path: Path) -> None:
    page = tmp_path / "whatif.html"
    page.write_text("mine", encoding="utf-8")
    refused = run(snapshot, "--html", page)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert page.read_text(encoding="utf-8") == "mine"
    assert run(snapshot, "--html", page, "--force").exit_code == 0
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_category_that_nobody_recorded_is_refused(snapshot: Path) -> None:
    result = run(snapshot, "--scale", "activation=0.5")
    assert result.exit_code == 1
    assert "no allocation is known to be activation" in result.stderr


def test_a_snapshot_knows_no_modules_to_recompute(snapshot: Path) -> None:
    result = run(snapshot, "--recompute", "full")
    assert result.exit_code == 1
    assert "knows no modules" in result.stderr
    assert "hint:" in result.stderr


@pytest.mark.parametrize(
    "args",
    [("--alloc-conf", "nonsense:1"), ("--scale", "activation"), ("--drop", "nothing"), ("--shard", "gradient=0")],
)
def test_wrong_values_are_refused(snapshot: Path, args: tuple[str, ...]) -> None:
    result = run(snapshot, *args)
    assert result.exit_code == 1
    assert "hint:" in result.stderr


def test_a_recording_of_the_cpu_through_the_model_of_a_gpu(tmp_path: Path, run_memtrace, repo_root: Path) -> None:
    trace = tmp_path / "trace.json"
    script = [warm_python(), repo_root / "samples/train_gpt.py", "--steps", "2", "--layers", "1", "--hidden", "32"]
    assert run_memtrace("record", "-o", trace, "--", *script).returncode == 0
    plain = run(trace)
    assert plain.exit_code == 1
    assert "--as cuda" in plain.stderr
    result = run(trace, "--as", "cuda", "--json", "--drop", "optimizer_state", "--empty-cache-each-step")
    assert result.exit_code == 0, result.output
    base, dropped = json.loads(result.stdout)["ranks"][0]["rows"]
    assert base["max_reserved_bytes"] % (2 * MIB) == 0
    assert dropped["peak_requested_bytes"] < base["peak_requested_bytes"]
    result = run(trace, "--as", "cuda", "--json", "--recompute", "full")
    assert result.exit_code == 0, result.output
    assert [row["name"] for row in json.loads(result.stdout)["ranks"][0]["rows"]] == ["baseline", "recompute full"]
