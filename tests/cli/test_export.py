"""`memtrace export`: every format holds what the trace holds, and opens in the tool it is for."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from memtrace.allocator.settings import parse_settings
from memtrace.analysis.attribution.inferred_marks import with_inferred_marks
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.report import analyze
from memtrace.cli import group
from memtrace.printable import escaped
from memtrace.store.reading.read import read_trace
from memtrace.store.writing.snapshot import snapshot_of
from memtrace.store.writing.table import table_bytes
from tests.allocator.simulated import Recorder
from tests.builders import contents

MIB = 1 << 20


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot whose program takes three blocks and frees one of them."""
    recorder = Recorder(parse_settings(""))
    blocks = [recorder.malloc(size) for size in (12 * MIB, 700, 40 * MIB)]
    assert blocks[0] is not None
    recorder.free(blocks[0])
    path = tmp_path / "snapshot.pickle"
    path.write_bytes(pickle.dumps(recorder.snapshot()))
    return path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(group, ["export", *map(str, args)])


def exported(snapshot: Path, target: str, *args: str) -> bytes:
    """Return what an export wrote."""
    path = snapshot.with_name("out")
    result = run(snapshot, "--to", target, "-o", path, "--force", *args)
    assert result.exit_code == 0, result.output
    return path.read_bytes()


def check_counters(trace_path: Path, document: dict[str, Any]) -> None:
    """Compare every counter of a Perfetto trace with the levels, moment by moment."""
    rank = with_inferred_marks(read_trace(trace_path).ranks[0])
    history = build_history(rank, "cuda:0", owns_marks=True)
    base_ns = document["baseTimeNanoseconds"]
    counters: dict[str, list[tuple[int, int]]] = {}
    for event in document["traceEvents"]:
        if event["ph"] == "C":
            at_ns = base_ns + round(event["ts"] * 1000)
            counters.setdefault(event["name"], []).append((at_ns, event["args"]["bytes"]))
    levels = {"requested": history.levels.requested, "reserved": history.levels.reserved}
    for (category, _), level in history.levels.by_kind.items():
        levels[category.value] = levels.get(category.value, np.zeros_like(level)) + level
    for name, level in levels.items():
        if level is None or not level.any():
            continue
        changes = np.flatnonzero(np.diff(level, prepend=level[0] - 1))
        expected = list(zip(history.moments.time_ns[changes].tolist(), level[changes].tolist(), strict=True))
        assert counters[f"cuda:0 {name}"] == expected, name


def test_perfetto_keeps_every_counter_value(snapshot: Path) -> None:
    document = json.loads(exported(snapshot, "perfetto"))
    check_counters(snapshot, document)
    assert {event["ph"] for event in document["traceEvents"]} <= {"M", "C", "X"}


def test_perfetto_of_a_real_recording(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "snapshots" / "gpt-train-3-steps-from-process-start-batch100.pickle"
    out = tmp_path / "out.json"
    assert run(real, "--to", "perfetto", "-o", out).exit_code == 0
    document = json.loads(out.read_bytes())
    check_counters(real, document)
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert {event["cat"] for event in slices} >= {"steps", "phases"}
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in slices)
    named = {(event["pid"], event["tid"]) for event in document["traceEvents"] if event["name"] == "thread_name"}
    assert {(event["pid"], event["tid"]) for event in slices} <= named


@pytest.mark.parametrize(
    "name",
    [
        "gpt-train-3-steps-from-process-start-batch100.pickle",
        "gpt-medium-train-warm-step-late-history.pickle",
        "segments-only-three-pools-pending-free.pickle",
    ],
)
def test_a_snapshot_survives_the_way_through_memtrace(shared_data: Path, tmp_path: Path, name: str) -> None:
    original = read_trace(shared_data / "snapshots" / name).ranks[0]
    again = tmp_path / "again.pickle"
    again.write_bytes(pickle.dumps(snapshot_of(original), protocol=4))
    read = read_trace(again).ranks[0]
    before, after = contents(original), contents(read)
    for table in ("segments", "blocks", "initial_blocks", "annotations"):
        assert after[table] == before[table], table
    # Times are kept in µs there.
    for row in before["events"]:
        row["time_ns"] = row["time_ns"] // 1000 * 1000
    assert after["events"] == before["events"]


@pytest.mark.parametrize("command", ["stats", "trace", "trace_plot", "segment_plot"])
def test_torch_opens_the_snapshot(snapshot: Path, tmp_path: Path, command: str) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "exported.pickle"
    path.write_bytes(exported(snapshot, "memory-viz"))
    options = ["-o", str(tmp_path / "plot.html")] if command.endswith("plot") else []
    line = [sys.executable, "-m", "torch.cuda._memory_viz", command, str(path), *options]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert not options or (tmp_path / "plot.html").stat().st_size > 0


def test_speedscope_adds_up_to_the_peak(snapshot: Path) -> None:
    document = json.loads(exported(snapshot, "speedscope"))
    (profile,) = document["profiles"]
    (rank,) = analyze(read_trace(snapshot)).ranks
    assert sum(profile["weights"]) == profile["endValue"] == rank.peak.requested_bytes
    assert all(0 <= frame < len(document["shared"]["frames"]) for sample in profile["samples"] for frame in sample)


def test_csv_has_a_row_an_allocation(snapshot: Path) -> None:
    frame = pd.read_csv(io.BytesIO(exported(snapshot, "csv")))
    assert sorted(frame["size_bytes"]) == [700, 12 * MIB, 40 * MIB]
    freed = frame[frame["size_bytes"] == 12 * MIB]
    assert freed["end_event"].notna().all()
    assert frame["end_event"].isna().sum() == 2


def test_a_spreadsheet_runs_no_cell_of_a_csv() -> None:
    texts = ["=1+1", "+cmd", "-x", "@sum", "\tx", "\rx", "a\x1b[31m", "-5", "+1.5", "layer=1", "a,b"]
    frame = pd.DataFrame({"text": texts, "number": [-number for number in range(len(texts))]})
    frame["label"] = pd.Categorical(texts)
    read = pd.read_csv(io.BytesIO(table_bytes(frame, "csv")), dtype={"text": str, "label": str})
    assert read["number"].tolist() == frame["number"].tolist()
    assert read["text"].tolist() == read["label"].tolist()
    for before, after in zip(texts, read["text"], strict=True):
        assert after.isprintable()
        is_number = before.lstrip("+-").replace(".", "").isdigit()
        assert after.startswith("'") == (before[0] in "=+-@\t\r" and not is_number)
        assert after.removeprefix("'") == (before if before.isprintable() else escaped(before))


def test_any_table_can_be_written(snapshot: Path) -> None:
    frame = pd.read_csv(io.BytesIO(exported(snapshot, "csv", "--table", "segments")))
    assert frame["total_bytes"].tolist() == read_trace(snapshot).ranks[0].table("segments")["total_bytes"].tolist()


def test_what_is_refused_says_what_to_try(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(snapshot.parent)
    for arguments, words in (
        (["--to", "csv", "--table", "nonsense"], "the tables are"),
        (["--to", "memory-viz", "--rank", "3"], "no rank 3"),
    ):
        result = run(snapshot, *arguments, "-o", "refused")
        assert result.exit_code == 1
        assert words in result.stderr
        assert not Path("refused").exists()
