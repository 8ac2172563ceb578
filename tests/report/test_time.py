"""Where the time goes, in the terminal and as JSON: the example of the documentation, and real ranks of one run."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from memtrace.analysis.communication.communication import communication_of_rank
from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from memtrace.analysis.results.step_times import StepTime, StepTimes, Throughput
from memtrace.analysis.time.overlap import time_of_rank
from memtrace.report.json.communication import communication_document
from memtrace.report.json.report import report_document, report_json
from memtrace.report.json.step_times import step_times_document
from memtrace.report.json.time import time_document
from memtrace.report.terminal.report import render_text
from memtrace.store.kineto.profile import read_profile
from memtrace.store.reading.read import read_trace
from memtrace.units import format_ns
from tests.analysis.small_profile import Profile
from tests.analysis.small_replicas import forward, timing
from tests.analysis.small_trace import owner, rank_trace, trace
from tests.analysis.small_trace import step as step_row
from tests.conftest import RunMemtrace
from tests.report.contract import check_report

MS = 1_000_000
_UNKNOWN_SPEED = ("tokens_per_step", "samples_per_step", "tokens_per_second", "samples_per_second", "flops")


def blocks(page: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def reported(path: Path) -> Report:
    return analyze(read_trace(path))


def test_the_example_prints_what_the_documentation_says(repo_root: Path, tmp_path: Path) -> None:
    page = (repo_root / "docs/time.md").read_text(encoding="utf-8")
    profile, output = (next(one for one in blocks(page) if mark in one) for mark in ("ProfilerStep#1", "Time on the"))
    (tmp_path / "step.json").write_text(profile, encoding="utf-8")
    report = reported(tmp_path / "step.json")
    assert output in render_text(report)
    time = report.ranks[0].time
    assert time is not None
    (step,) = time.steps
    # The sums that the text below the example does.
    assert (step.compute_ns, step.communication_ns, step.hidden_ns) == (63 * MS, 33 * MS, 18 * MS)
    assert (step.copy_only_ns, step.idle_ns, step.outside_ns) == (8 * MS // 10, 202 * MS // 10, 2 * MS)


def test_every_key_of_a_window_is_documented(repo_root: Path) -> None:
    page = (repo_root / "docs/time.md").read_text(encoding="utf-8")
    time = time_of_rank(Profile().gpu(0, 1).rank())
    assert time is not None
    document = time_document(time)
    keys = {*document["whole"], *document} - {"start_ns", "end_ns", "window", "unfinished_steps", "num_devices"}
    keys -= {"num_activities"}
    assert sorted(key for key in keys if f"`{key}`" not in page and key not in ("window_ns",)) == []


def test_every_key_of_steps_and_communication_is_documented(repo_root: Path) -> None:
    page = (repo_root / "docs/time.md").read_text(encoding="utf-8")
    throughput = Throughput(step_ns=1, num_steps=1, of_recorded=True, **dict.fromkeys(_UNKNOWN_SPEED))
    step = StepTime(step=1, start_ns=0, end_ns=1, recording_ns=None, phases_ns=None, tokens=None, samples=None)
    times = step_times_document(StepTimes(steps=(step,), throughput=throughput))
    rank = rank_trace(
        replica_forwards=[forward(1, 1, 0)],
        reducer_timings=[timing(2, backward=2, communication=2, overlap=1)],
        owners=[owner(1, 1, 1, "communication") | {"name": "all-gather of x"}],
    )
    exchanged = communication_of_rank(rank)
    assert exchanged is not None
    document = communication_document(exchanged)
    (replica,), (group,) = document["replicas"], document["shard_groups"]
    keys = {*document, *replica, *replica["time"], *group, *times["steps"][0], *times, *times["throughput"]}
    keys -= {"replica", "name", "steps", "step", "start_ns", "end_ns"}
    assert sorted(key for key in keys if f"`{key}`" not in page) == []


def test_two_ranks_of_a_run_are_one_report(shared_data: Path, run_memtrace: RunMemtrace) -> None:
    paths = [shared_data / f"kineto/train-128-ranks-sampled-rank{rank}.json.gz" for rank in (0, 1)]
    done = run_memtrace("report", *paths, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    check_report(document)
    times = [time_of_rank(read_trace(path).ranks[0]) for path in paths]
    assert [rank["rank"] for rank in document["ranks"]] == [0, 1]
    assert [rank["device"] for rank in document["ranks"]] == ["cuda:0", "cuda:1"]
    assert [rank["time"] for rank in document["ranks"]] == [time_document(time) for time in times if time]
    found = {(one["slug"], one["rank"]): one["saves_ns"] for one in document["findings"]}
    for rank, time in enumerate(times):
        assert time is not None
        assert found["exposed-communication", rank] == sum(one.exposed_ns for one in time.steps) // len(time.steps)
    assert document["verdict"].startswith("No memory was recorded. Rank 0: of ")


def test_a_profile_of_the_cpu_has_no_time_section(shared_data: Path) -> None:
    report = reported(shared_data / "kineto/cpu-only-rank34-of-300.json.gz")
    assert "Time on the GPU" not in render_text(report)
    assert report_document(report)["ranks"][0]["time"] is None
    assert report.verdict == "No memory was recorded: there is nothing in this file to report on."


def test_the_report_is_about_the_device_in_use() -> None:
    properties = [{"id": index, "name": "H", "totalGlobalMem": 80 * 2**30} for index in range(8)]
    document = {"traceEvents": Profile().gpu(0, 1, device=3).events, "deviceProperties": properties}
    (rank,) = analyze(trace(read_profile(document, where="small"))).ranks
    assert (rank.device, rank.capacity_bytes, rank.time is None) == ("cuda:3", 80 * 2**30, False)


def test_of_many_steps_the_first_and_the_last_are_shown() -> None:
    profile = Profile()
    for number in range(1, 31):
        profile.step(number, number * 100, number * 100 + 100).gpu(number * 100, number * 100 + number)
    text = render_text(analyze(trace(profile.rank())))
    section = text[text.index("Time on the GPU") :]
    rows = [line.split()[0] for line in section.splitlines()[3:13]]
    assert rows == ["1", "2", "3", "4", "…", "27", "28", "29", "30", "whole"]
    assert "22 more" in section
    assert format_ns(30_000) in section


def test_names_of_a_hostile_profile_cannot_steer_the_terminal() -> None:
    profile = Profile().gpu(0, 10).communication(10, 20, name="nccl\x1b[2J_AllReduce\x1b[31m")
    profile.step(1, 0, 10).add("user_annotation", "enumerate(DataLoader)\x1b]0;x\x07", 0, 5)
    report = analyze(trace(profile.rank()))
    assert all(char.isprintable() or char == "\n" for char in render_text(report))
    json.loads(report_json(report))


def test_what_no_step_holds_is_told() -> None:
    profile = Profile().step(1, 0, 10).gpu(1, 15).gpu(30, 40).add("kernel", "lost", 50, 60, correlation=99, device=1)
    text = " ".join(render_text(analyze(trace(profile.rank()))).split())
    for part in (
        "1 activities without a recorded launch are in no step",
        "1 activities were launched outside all steps",
        "2 devices together",
        "more than the window",
    ):
        assert part in text


def test_a_recording_says_how_much_of_it_was_not_profiled() -> None:
    profile = Profile().gpu(100, 110).gpu(300, 310)
    profile.add("Trace", "PyTorch Profiler (0)", 90, 200).add("Trace", "PyTorch Profiler (0)", 300, 400)
    steps = [step_row(number, number * 100_000, (number + 1) * 100_000) for number in (1, 2, 3)]
    text = render_text(analyze(trace(profile.recorded(steps=steps))))
    assert "For 100 µs of the whole the profiler did not run" in text
    assert "as recorded, to the end of its optimizer" in text


def test_the_widest_row_fits() -> None:
    profile = Profile().step(551, 0, 9e8).gpu(0, 1e8).communication(5e7, 2e8).copy(3e8, 4e8)
    profile.add("user_annotation", "enumerate(DataLoader)", 4e8, 5e8).add("cuda_runtime", "cudaMalloc", 6e8, 7e8)
    report = analyze(trace(profile.rank()))
    for width in (80, 100):
        assert max(map(len, render_text(report, width=width).splitlines())) <= width
    document: dict[str, Any] = report_document(report)
    assert document["ranks"][0]["time"]["steps"][0]["data_stall_ns"] == 10**11
    assert dataclasses.asdict(report.ranks[0])["time"]["window"] == "ProfilerStep"
