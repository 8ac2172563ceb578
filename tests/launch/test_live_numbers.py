"""What `memtrace live` makes of a status whose numbers no recording could write."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from memtrace.launch.live import Watch
from memtrace.report.terminal.live import print_frame

FIELDS = ("step", "since_ns", "measured_step", "allocated_bytes", "peak_allocated_bytes", "reserved_bytes")
NOW_NS = 10**18


@pytest.mark.parametrize("number", [2**63, -(2**63), 10**40, True, 1.5, "7", None])
def test_a_number_that_no_recording_writes_is_none(tmp_path: Path, number: object) -> None:
    folder = tmp_path / "t.json.parts"
    folder.mkdir()
    header = {"k": "header", "rank": 0, "pid": number, "start_ns": 1}
    device = {"k": "device", "name": "cpu", "capacity_bytes": number}
    step = {"k": "step", "step": 1, "start_ns": 0, "end_ns": number, "host_rss_bytes": number}
    (folder / "rank00000-host-7-00ff.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in (header, device, step))
    )
    status = {**dict.fromkeys(FIELDS, number), "device": "cpu", "by_category": {"parameter": number, "gradient": 7}}
    (folder / "rank00000-host-7-00ff.status.json").write_text(json.dumps(status).ljust(1024))
    run = Watch(str(folder)).look(NOW_NS)
    shown = io.StringIO()
    print_frame(run, shown)
    (rank,) = run.ranks
    assert (rank.pid, rank.step, rank.allocated_bytes, rank.capacity_bytes, rank.host_rss_bytes) == (None,) * 5
    assert rank.by_category == {"gradient": 7}
    assert rank.step_ns is None


def test_the_largest_number_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "t.json.parts"
    folder.mkdir()
    (folder / "rank00000-host-7-00ff.jsonl").write_text(json.dumps({"k": "header", "rank": 0, "start_ns": 1}) + "\n")
    status = {"step": 1, "device": "cpu", "allocated_bytes": 2**63 - 1, "by_category": {"parameter": 2**63 - 1}}
    (folder / "rank00000-host-7-00ff.status.json").write_text(json.dumps(status).ljust(1024))
    run = Watch(str(folder)).look(NOW_NS)
    assert run.ranks[0].allocated_bytes == run.ranks[0].by_category["parameter"] == 2**63 - 1
    print_frame(run, io.StringIO())
