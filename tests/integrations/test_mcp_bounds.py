"""Answers for agents stay short, whatever a trace holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("mcp")

from memtrace.analysis.asked.at_moment import AtMoment
from memtrace.integrations.mcp import build
from memtrace.integrations.mcp.shorten import MAX_CHARS, MAX_ROWS, fitting, plain
from memtrace.integrations.mcp.traces import MAX_KEPT, Traces
from memtrace.store.writing.trace import write_trace
from tests.builders import rank_trace, trace_of
from tests.fake_report import HOSTILE, gpt_report, hostile_report, ranks_report

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=15) | st.dictionaries(st.text(max_size=5), inner, max_size=15),
    max_leaves=40,
)


@given(JSON)
def test_evidence_is_bounded(value: object) -> None:
    assert len(json.dumps(plain(value), ensure_ascii=False)) < MAX_CHARS


def test_evidence_of_the_largest_kind_is_bounded() -> None:
    value: object = "é" * 5000
    for _ in range(5):
        value = {f"{at}{'k' * 500}": value for at in range(40)}
    assert len(json.dumps(plain(value), ensure_ascii=False)) < MAX_CHARS


def test_many_ranks_are_shown_a_few_at_a_time() -> None:
    report = ranks_report(200)
    first = fitting(lambda room: build.summary(report, room), MAX_ROWS, 0)
    assert len(first.model_dump_json()) <= MAX_CHARS
    assert 1 < len(first.ranks) < MAX_ROWS
    assert f"ranks: 1 to {len(first.ranks)} of 200; offset={len(first.ranks)} shows the next" in first.left_out
    # The offset leads through all of them, each once.
    seen: list[int | None] = []
    while len(seen) < 200:
        seen += [one.rank for one in fitting(lambda room: build.summary(report, room), 10, len(seen)).ranks]
    assert sorted(rank for rank in seen if rank is not None) == list(range(200))


def test_names_out_of_files_are_cut_and_cannot_act() -> None:
    report = hostile_report()
    (rank, *_) = report.ranks
    long = replace(rank.top_stacks[0], frames=tuple(f"{'x' * 5000}.py:{line} f" for line in range(90)))
    found = AtMoment(state=rank.peak, modules=rank.top_modules, stacks=(long,) * 100)
    answer = fitting(
        lambda room: build.peak(found, room, moment="peak", rank=0, device=rank.device), MAX_ROWS, 0
    ).model_dump_json()
    assert len(answer) <= MAX_CHARS
    summary = build_summary_text(report)
    assert not any(char in summary for char in "\x1b\u202e\u2028")
    assert "\x1b" in "".join(HOSTILE)


def build_summary_text(report: object) -> str:
    """Return a summary with nothing escaped."""
    answer = fitting(lambda room: build.summary(report, room), 10, 0)  # type: ignore[arg-type]
    return json.dumps(answer.model_dump(), ensure_ascii=False)


def test_a_whole_answer_leaves_nothing_out() -> None:
    assert fitting(lambda room: build.summary(gpt_report(), room), 10, 0).left_out == []


def test_few_traces_are_kept(tmp_path: Path) -> None:
    traces = Traces()
    names = [str(tmp_path / f"{number}.json") for number in range(MAX_KEPT + 1)]
    for name in names:
        write_trace(trace_of(rank_trace()), Path(name))
    first = traces.load(names[0])
    assert traces.load(names[0]) is first
    for name in names[1:]:
        traces.load(name)
    assert traces.load(names[0]) is not first
