"""A redacted trace: the same events under other texts, in which nothing tells on a person."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from memtrace.analysis.report import analyze
from memtrace.schema.redaction import Redaction, without_places
from memtrace.store.reading.read import read_trace
from memtrace.store.redaction.redact import redacted, shareable
from memtrace.store.trace import Trace
from tests.builders import snapshot

FRAMES = [
    ("/home/amelie/secret/train.py", 3, "train"),
    ("/home/amelie/secret/model.py", 40, "forward"),
    ("/home/amelie/my optimizers/lion.py", 8, "step"),
    ("/env/lib/python3.11/site-packages/torch/nn/functional.py", 9, "linear"),
    ("/env/lib/python3.11/site-packages/inhouse/layers.py", 5, "apply"),
    ("/env/lib/python3.11/threading.py", 7, "run"),
]


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    built = snapshot()
    for at, frame in enumerate(FRAMES):
        built = built.alloc(0x1000 * (at + 1), 512 * (at + 1), frames=[frame])
    (tmp_path / "amelie.pickle").write_bytes(pickle.dumps(built.build()))
    return read_trace(tmp_path / "amelie.pickle")


def files_of(trace: Trace) -> list[str]:
    (rank,) = trace.ranks
    return sorted(str(rank.text(file)) for file in rank.table("frames")["file"])


def test_folders_go_and_libraries_stay(trace: Trace) -> None:
    shown = redacted(trace, Redaction.PERSONAL)
    assert files_of(shown) == [
        "lib/python3/threading.py",
        "model.py",
        "optim/lion.py",
        "site-packages/inhouse/layers.py",
        "torch/nn/functional.py",
        "train.py",
    ]
    assert "amelie" not in repr((shown.header, shown.path, [rank.strings for rank in shown.ranks]))
    assert "/home/amelie/secret/train.py" in trace.ranks[0].strings


@pytest.mark.parametrize("redaction", [Redaction.PERSONAL, Redaction.SOURCE])
def test_figures_do_not_change(trace: Trace, redaction: Redaction) -> None:
    before, after = analyze(trace), analyze(redacted(trace, redaction))
    for one, other in zip(before.ranks, after.ranks, strict=True):
        assert one.peak == other.peak
        assert [row.num_bytes for row in one.top_stacks] == [row.num_bytes for row in other.top_stacks]
        assert [row.category for row in one.top_stacks] == [row.category for row in other.top_stacks]


def test_without_source_a_report_has_functions_and_no_file(trace: Trace) -> None:
    report = without_places(analyze(redacted(trace, Redaction.SOURCE)))
    (rank,) = report.ranks
    assert sorted(row.frames[0] for row in rank.top_stacks) == sorted(frame[2] for frame in FRAMES)
    assert "hidden-" not in repr(report)


def test_hidden_files_and_their_lines_are_counted_in_what_is_written(trace: Trace) -> None:
    shown = shareable(trace, Redaction.SOURCE)
    assert len(set(files_of(shown))) == len(FRAMES)
    assert sorted(re.sub(r"\d+\.py", "N.py", one) for one in files_of(shown)) == [
        "lib/python3/source-N.py",
        "optim-source-N.py",
        "site-packages/source-N.py",
        "source-N.py",
        "source-N.py",
        "torch/nn/functional.py",
    ]
    frames = shown.ranks[0].table("frames")
    is_torch = np.array([str(shown.ranks[0].text(file)).startswith("torch/") for file in frames["file"]])
    assert set(frames["line"][~is_torch].tolist()) == {1}
    assert frames["line"][is_torch].tolist() == [9]


def test_nothing_to_hide_leaves_the_trace_as_it_is(trace: Trace) -> None:
    assert redacted(trace, Redaction.NOTHING) is trace
