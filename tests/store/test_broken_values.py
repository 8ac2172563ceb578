"""Values that no recording has, in files that are otherwise whole: refused in a sentence, or read as far as they go."""

from __future__ import annotations

import json
import pickle
import socket
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from memtrace.analysis.report import analyze
from memtrace.errors import MemtraceError, RecordError, TraceReadError
from memtrace.launch.live import Watch
from memtrace.launch.output import LAUNCHER_FILE, MAX_PID, is_running
from memtrace.launch.trigger import candidate_folders, trigger
from memtrace.schema.frames import frame_class
from memtrace.store.columns import MAX_DEVICES
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from memtrace.store.writing.trace import write_trace
from memtrace.units import MAX_BYTES, parse_bytes
from tests.builders import START_US, parts, rank_trace, snapshot, trace_of

START_NS = 1000 * START_US


@pytest.mark.parametrize("end_ns", [0, START_NS - 1])
def test_stretch_that_ends_before_it_began_is_its_start(end_ns: int) -> None:
    """A clock that is set back gives such steps and phases."""
    events = [{"action": "alloc", "address": 512 * at, "size_bytes": at + 1} for at in range(6)]
    step: dict[str, Any] = {"step": 1, "start_ns": START_NS + 3000, "end_ns": end_ns, "recorded": True}
    phase = {"step": 1, "phase": "forward", "start_ns": START_NS + 3000, "end_ns": end_ns}
    report = analyze(trace_of(rank_trace(events=events, steps=[step], phases=[phase])))
    result = report.ranks[0].steps[0]
    at_start = sum(range(1, 5))
    assert result.peak_requested_bytes == result.phases[0].peak_requested_bytes == at_start


@pytest.mark.parametrize("value", [[1], {"a": 1}, "1", 2**70])
@pytest.mark.parametrize("kind", ["step", "optimizer"])
def test_number_of_a_record_that_is_none_is_refused(tmp_path: Path, kind: str, value: Any) -> None:
    field = {"step": "step", "optimizer": "group"}[kind]
    parts(tmp_path).header().record(kind, **{field: value}).chunk([("alloc", 512, 512)]).end()
    with pytest.raises(TraceReadError, match="a number was expected"):
        read_trace(tmp_path)


@pytest.mark.parametrize("size", [2**61, 2**62, 2**62 + 2**61])
def test_sizes_whose_sum_would_not_fit_are_refused(tmp_path: Path, size: int) -> None:
    path = snapshot().alloc(512, size).alloc(2**40, 512).write(tmp_path / "snapshot.pickle")
    with pytest.raises(TraceReadError, match="no machine has"):
        read_trace(path)


@pytest.mark.parametrize("pid", [MAX_PID + 1, 2**64, 10**400])
def test_number_that_no_process_has_runs_nowhere(tmp_path: Path, pid: int) -> None:
    assert not is_running({"pid": pid, "host": socket.gethostname()})
    parts(tmp_path).header(pid=pid, host=socket.gethostname())
    (tmp_path / LAUNCHER_FILE).write_text(json.dumps({"pid": pid, "host": socket.gethostname()}))
    assert Watch(str(tmp_path)).look(0).ranks


@pytest.mark.parametrize("name", ["a" * 300, "a" * 252, "9" * 400, "9" * 5000, "a/" * 3000, "a\0b", str(MAX_PID + 1)])
def test_name_that_no_file_can_have_is_one_that_is_not_there(name: str) -> None:
    assert candidate_folders(name) == []
    with pytest.raises(RecordError, match="no recording"):
        trigger(name, 1)
    with pytest.raises(RecordError, match="no recording"):
        Watch(name)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "GiB", f"{MAX_BYTES}", "1024TiB"])
def test_size_beyond_any_machine_is_refused(text: str) -> None:
    with pytest.raises(MemtraceError, match="not a size") as caught:
        parse_bytes(text)
    assert len(caught.value.message) < 100
    assert parse_bytes(str(MAX_BYTES - 512)) == MAX_BYTES - 512


def written(tmp_path: Path, rank: RankTrace) -> Path:
    path = tmp_path / "trace.json"
    write_trace(trace_of(rank), path)
    return path


@pytest.mark.parametrize("time_ns", [2**62, 2**63 - 1, -(2**61) - 1, 1 - 2**63])
@pytest.mark.parametrize(("table", "column"), [("events", "time_ns"), ("steps", "end_ns"), ("phases", "start_ns")])
def test_time_that_no_clock_shows_is_refused(tmp_path: Path, table: str, column: str, time_ns: int) -> None:
    rows = {"events": [{"action": "alloc", "address": 512, "size_bytes": 1, "time_ns": 5}]}
    rows |= {"steps": [{"step": 1, "start_ns": 1, "end_ns": 9}], "phases": [{"start_ns": 1, "end_ns": 9}]}
    rows[table][0][column] = time_ns
    with pytest.raises(TraceReadError, match=f"{table}.{column}: a time that no clock shows"):
        read_trace(written(tmp_path, rank_trace(**rows)))


def test_time_of_the_header_and_of_a_snapshot_that_no_clock_shows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceReadError, match="end_ns is a time that no clock shows"):
        read_trace(written(tmp_path, rank_trace({"end_ns": 2**62})))
    built = snapshot().alloc(512, 512).build()
    built["device_traces"][0][0]["time_us"] = 2**62 // 1000 + 1
    (tmp_path / "snapshot.pickle").write_bytes(pickle.dumps(built))
    with pytest.raises(TraceReadError, match="time_us: a time that no clock shows"):
        read_trace(tmp_path / "snapshot.pickle")


def test_more_devices_than_a_process_can_have_are_refused(tmp_path: Path) -> None:
    events = [
        {"action": "alloc", "address": 512, "size_bytes": 1, "device": f"cuda:{at}"} for at in range(MAX_DEVICES + 1)
    ]
    with pytest.raises(TraceReadError, match=f"{MAX_DEVICES + 1} devices"):
        read_trace(written(tmp_path, rank_trace(events=events)))
    built = snapshot().alloc(512, 512).build()
    built["device_traces"] *= MAX_DEVICES + 1
    (tmp_path / "snapshot.pickle").write_bytes(pickle.dumps(built))
    with pytest.raises(TraceReadError, match=f"device_traces: {MAX_DEVICES + 1} devices"):
        read_trace(tmp_path / "snapshot.pickle")


def test_window_whose_end_is_beyond_64_bits_is_refused(tmp_path: Path) -> None:
    events = [{"action": "alloc", "address": 512 * at, "size_bytes": 1} for at in range(2)]
    path = written(tmp_path, rank_trace(events=events))
    document = json.loads(path.read_text())
    windows = document["ranks"][0]["tables"]["windows"]
    windows |= {"first_event": [1], "num_events": [2**63 - 1]}
    path.write_text(json.dumps(document))
    with pytest.raises(TraceReadError, match="more events than there are"):
        read_trace(path)


def test_a_long_name_takes_as_long_as_it_is() -> None:
    began = process_time()
    # Half an hour where its end is looked for from each letter.
    assert frame_class("x" * 300_000) == 1
    assert process_time() - began < 60
