"""The new peak of a finding is what the model of the allocator makes of the requests that its remedy leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from memtrace.allocator.requests import COMPLETE, GIVE, TAKE, Requests
from memtrace.allocator.whatif import Change, read_recording, what_if
from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.advice.edited_requests import edited_requests
from memtrace.analysis.asked.what_ifs import Asked, try_what_ifs
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.report import analyze
from memtrace.cli import group
from memtrace.errors import MemtraceError
from memtrace.report.terminal.report import render_text
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import event_rows, initial_block, rank_trace, trace, window

RECORDINGS = ("expandable-segments", "graph", "out-of-memory", "two-streams")
"""Of samples/recordings: whole histories of a device."""


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_finding_and_a_what_if_of_its_remedy_give_the_same_number(repo_root: Path, name: str) -> None:
    made = read_trace(repo_root / f"samples/recordings/{name}.json.gz")
    replayed = [one for one in analyze(made).findings if "is_replayed" in one.evidence]
    assert replayed
    results, _ = try_what_ifs(made, Asked(remedies=tuple(one.slug for one in replayed)))
    rows = {row.name: row for row in results[0].rows}
    for one in replayed:
        row = rows[f"remedy of {one.slug}"]
        assert one.evidence["is_replayed"]
        assert one.new_peak_bytes == row.peak_allocated_bytes
        assert one.saves_bytes == rows["baseline"].peak_allocated_bytes - row.peak_allocated_bytes
        assert one.evidence["replayed_reserved_bytes"] == row.max_reserved_bytes


def test_a_new_peak_that_was_replayed_is_said_to_be(repo_root: Path) -> None:
    text = render_text(analyze(read_trace(repo_root / "samples/recordings/two-streams.json.gz")))
    assert "(replayed)" in text
    assert "(not replayed)" not in text


def test_the_command_takes_the_name_of_a_finding(repo_root: Path) -> None:
    path = str(repo_root / "samples/recordings/two-streams.json.gz")
    ran = CliRunner().invoke(group, ["whatif", path, "--remedy", "smaller-micro-batch"])
    assert ran.exit_code == 0, ran.output
    assert "remedy of smaller-micro-batch" in ran.output


def test_a_finding_that_is_not_there_is_refused_with_those_that_are(repo_root: Path) -> None:
    made = read_trace(repo_root / "samples/recordings/graph.json.gz")
    with pytest.raises(MemtraceError, match="no finding 'leak'") as refused:
        try_what_ifs(made, Asked(remedies=("leak",)))
    assert "smaller-micro-batch" in str(refused.value.hint)


EVENTS = [
    ("alloc", 0x1000, 40),
    ("alloc", 0x2000, 100),
    ("free_completed", 0x1000, 40),
    ("alloc", 0x3000, 7),
    ("free_completed", 0x2000, 100),
    ("free_completed", 0x3000, 7),
]
"""Moments 1 to 6; 0x9000 of 500 bytes is there from the start, moment 0, on."""


def small_case() -> Case:
    rank = rank_trace(
        events=event_rows(EVENTS), windows=[window(0, len(EVENTS))], initial_blocks=[initial_block(0x9000, 500)]
    )
    return Case(build_history(rank, "cpu", owns_marks=True))


def peaks_with(case: Case, *cuts: Cut) -> tuple[int, int]:
    """Return the peak after some cuts by the level, and by the requests."""
    recording = read_recording(case.history.rank, "cpu", as_cuda=True)
    edited = edited_requests(recording.requests, case.history.moments, case.lifetimes, cuts)
    assert edited is not None
    check_order(edited.requests)
    change = Change(name="cut", requests=edited.requests, num_before=edited.num_before)
    return int(case.level_without(*cuts).max()), what_if(recording, [change]).rows[-1].peak_requested_bytes


def check_order(requests: Requests) -> None:
    """Each request is taken once before it is given, once, and that completed."""
    state = [TAKE if number < requests.num_initial else -1 for number in range(len(requests.size))]
    before = {TAKE: -1, GIVE: TAKE, COMPLETE: GIVE}
    for kind, number in zip(requests.kind, requests.number, strict=True):
        assert state[number] == before[kind]
        state[number] = kind


@pytest.mark.parametrize(
    ("address", "start", "end", "size"),
    [
        (0x2000, 2, 5, 100),  # for its whole life
        (0x2000, 2, 5, 60),  # a part of it
        (0x2000, 3, 5, 100),  # its end
        (0x2000, 2, 3, 100),  # its beginning
        (0x2000, 3, 4, 100),  # its middle
        (0x2000, 3, 4, 30),  # a part of its middle
        (0x9000, 0, 7, 500),  # what was there before
        (0x9000, 0, 7, 200),
        (0x9000, 2, 5, 500),
        (0x9000, 0, 3, 450),
    ],
)
def test_requests_peak_where_levels_do(address: int, start: int, end: int, size: int) -> None:
    case = small_case()
    row = np.flatnonzero(case.lifetimes.address == address)
    cut = Cut(start=np.array([start]), end=np.array([end]), size_bytes=np.array([size]), rows=row)
    by_level, by_requests = peaks_with(case, cut)
    assert by_level == by_requests


@pytest.mark.parametrize(("start", "end"), [(0, 7), (1, 3), (2, 7), (4, 5)])
def test_bytes_in_addition_are_requests_of_their_own(start: int, end: int) -> None:
    case = small_case()
    more = Cut(start=np.array([start]), end=np.array([end]), size_bytes=np.array([-1000]))
    by_level, by_requests = peaks_with(case, more)
    assert by_level == by_requests


def test_random_cuts_of_random_histories_peak_where_levels_do() -> None:
    random = np.random.default_rng(7)
    for _ in range(40):
        case = Case(build_history(_random_rank(random), "cpu", owns_marks=True))
        rows = np.flatnonzero(random.random(len(case.lifetimes)) < 0.5)
        bounds = np.sort(random.integers(0, len(case.level) + 1, (2, len(rows))), axis=0)
        start = np.maximum(bounds[0], case.lifetimes.start[rows])
        end = np.minimum(bounds[1], case.lifetimes.in_use_end[rows])
        size = (case.lifetimes.size_bytes[rows] * random.choice([0.25, 0.5, 1.0], len(rows))).astype(np.int64)
        less = Cut(start=start, end=np.maximum(start, end), size_bytes=size, rows=rows)
        at = np.sort(random.integers(0, len(case.level), 2))
        more = Cut(start=at[:1], end=at[1:] + 1, size_bytes=np.array([-int(random.integers(1, 5000))]))
        by_level, by_requests = peaks_with(case, less, more)
        assert by_level == by_requests


def _random_rank(random: np.random.Generator) -> RankTrace:
    live: dict[int, int] = {}
    events = []
    for at in range(1, 40):
        if live and random.random() < 0.45:
            address = int(random.choice(sorted(live)))
            events.append(("free_completed", address, live.pop(address)))
        else:
            address = at << 20
            live[address] = int(random.integers(1, 4000))
            events.append(("alloc", address, live[address]))
    return rank_trace(
        events=event_rows(events),
        windows=[window(0, len(events))],
        initial_blocks=[initial_block((100 + at) << 20, 900 * at) for at in (1, 2, 3)],
    )


def test_bytes_of_no_known_allocation_are_not_replayed() -> None:
    case = small_case()
    recording = read_recording(case.history.rank, "cpu", as_cuda=True)
    unknown = Cut(start=np.array([1]), end=np.array([2]), size_bytes=np.array([10]))
    assert edited_requests(recording.requests, case.history.moments, case.lifetimes, [unknown]) is None


def test_on_the_cpu_the_promise_is_the_peak_of_the_requests() -> None:
    made = trace(small_case().history.rank)
    assert not any("is_replayed" in one.evidence for one in analyze(made).findings)
