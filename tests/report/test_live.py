"""Frames and lines of a running recording, from results."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from memtrace.launch.live_results import LiveRank, LiveRun, LiveWarning, RankState
from memtrace.report.terminal.live import MAX_RANKS, print_frame, screen

GIB = 1024**3
RANK = LiveRank(
    rank=0,
    pid=100,
    state=RankState.RUNNING,
    age_ns=10**8,
    step=13,
    phase="backward",
    phase_ns=75 * 10**9,
    step_ns=312 * 10**6,
    measured_step=12,
    device="cuda:0",
    capacity_bytes=80 * GIB,
    allocated_bytes=30 * GIB,
    peak_allocated_bytes=50 * GIB,
    reserved_bytes=60 * GIB,
    num_alloc_retries=2,
    host_rss_bytes=5 * GIB,
    categories_step=12,
    by_category={"parameter": 10 * GIB, "optimizer_state": 16 * GIB},
    warnings=(),
)
NOTHING = replace(
    RANK,
    **dict.fromkeys(
        ("pid", "age_ns", "step", "phase", "phase_ns", "step_ns", "measured_step", "device", "capacity_bytes")
    ),
    **dict.fromkeys(("allocated_bytes", "peak_allocated_bytes", "reserved_bytes", "num_alloc_retries")),
    **dict.fromkeys(("host_rss_bytes", "categories_step")),
    by_category={},
    state=RankState.STARTING,
)


def frame(*ranks: LiveRank, is_over: bool = False, num_others: int = 0) -> str:
    """Return a frame as text."""
    file = StringIO()
    print_frame(LiveRun(title="run", ranks=ranks, num_others=num_others, is_over=is_over), file)
    return file.getvalue()


def test_a_frame_says_where_each_rank_is_and_what_it_holds() -> None:
    text = frame(RANK, replace(RANK, rank=1, state=RankState.GONE, age_ns=34 * 10**9))
    rows = [line.split("  ") for line in text.splitlines() if "rank " in line]
    assert text.splitlines()[0] == "run: 1 of 2 running"
    # What is in trouble stands first.
    assert [row[0].strip() for row in rows[:2]] == ["rank 1", "rank 0"]
    assert "rank 1: process 100 is gone, in backward of step 13; it last wrote 34 s ago" in text
    assert "rank 0: the device was full 2 times" in text
    assert "backward, 1 min 15 s" in text
    for shown in ("13", "312 ms", "30.0 GiB", "50.0 GiB", "60.0 GiB", "75 %", "10.0 GiB", "16.0 GiB"):
        assert shown in text
    # 30 allocated less 26 owned.
    assert "4.00 GiB" in text


def test_bytes_of_another_step_are_not_subtracted() -> None:
    assert "4.00 GiB" not in frame(replace(RANK, categories_step=3))


def test_what_is_not_known_is_not_shown() -> None:
    text = frame(NOTHING)
    assert "before training" in text
    assert "reserved" not in text
    assert "None" not in text
    assert "waiting for a process" in frame()
    assert "1 more process does not train" in frame(RANK, num_others=1)
    assert "the recording is over" in frame(replace(RANK, state=RankState.ENDED), is_over=True)


def test_names_cannot_steer_the_terminal() -> None:
    hostile = LiveWarning(slug="\x1b[2J", message="\x1b[31m</b>[bold]")
    gone = replace(RANK, rank=1, warnings=(hostile,), phase="\x1b[1m", state=RankState.GONE)
    text = frame(replace(RANK, warnings=(hostile,), phase="\x1b[1m"), gone)
    assert "\x1b" not in text
    assert "(2 ranks)" in text
    assert "[bold]" in text


def test_of_very_many_ranks_those_in_trouble_are_shown() -> None:
    ranks = [replace(RANK, rank=number) for number in range(512)]
    ranks[400] = replace(ranks[400], state=RankState.SILENT, age_ns=60 * 10**9)
    text = frame(*ranks)
    assert f"and {512 - MAX_RANKS} more ranks" in text
    assert "rank 400" in text
    assert "rank 400: nothing was written for 1 min 0 s, in backward of step 13" in text


def test_without_a_terminal_a_rank_has_a_line_when_it_gets_on() -> None:
    file = StringIO()
    with screen(file) as shown:
        for step in (13, 13, 14):
            shown.show(LiveRun(title="run", ranks=(replace(RANK, step=step),), num_others=0, is_over=False))
    lines = file.getvalue().splitlines()
    assert ["step 13" in lines[0], "step 14" in lines[1], len(lines)] == [True, True, 2]
