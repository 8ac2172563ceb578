"""The blind test on a few recordings: what is inferred without hooks agrees with what the hooks said."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import numpy as np
import pytest

from benchmarks.blind import MAX_MEDIAN_WRONG, MAX_WRONG, meets_targets
from benchmarks.blindfold.accelerator import DEVICE, as_on_accelerator
from benchmarks.blindfold.compare import Comparison, compare
from benchmarks.blindfold.programs import programs, record
from benchmarks.blindfold.strip import as_recorded, late
from benchmarks.blindfold.views import VIEWS
from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import build_history
from memtrace.schema.names import Category
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace

NAMES = (
    "gpt-wide-adamw-foreach-bf16-zero-in-place",
    "gpt-wide-adamw-loop-fp32-accumulation",
    "gpt-small-sgd-momentum-fp32-checkpointing",
    "gpt-wide-sgd-fp32-plain",
    "resnet-adamw-fp32-plain",
)
MAX_UNKNOWN = 0.20
"""An empty answer is never wrong, so that how much has an answer is asserted too."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RankTrace]:
    # Tests that run in several processes share what one of them recorded.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "blind"
    folder.mkdir(exist_ok=True)
    chosen = {program.name: program for program in programs() if program.name in NAMES}
    return {name: read_trace(record(chosen[name], folder)).ranks[0] for name in NAMES}


def _view(ranks: dict[str, RankTrace], name: str) -> list[Comparison]:
    (view,) = (one for one in VIEWS if one.name == name)
    return [view.compare(rank) for rank in ranks.values()]


@pytest.mark.parametrize("name", ["as recorded", "accelerator"])
def test_whole_recordings_are_inferred_as_the_hooks_saw_them(ranks: dict[str, RankTrace], name: str) -> None:
    found = _view(ranks, name)
    assert meets_targets(found), [one.wrong_share for one in found]
    assert max(one.unknown_share for one in found) <= MAX_UNKNOWN
    assert max(one.unanswered_share for one in found) <= 0.01
    assert statistics.median(one.wrong_share_of_byte_moments for one in found) <= MAX_MEDIAN_WRONG
    assert max(one.wrong_share_of_byte_moments for one in found) <= MAX_WRONG


@pytest.mark.parametrize("name", ["accelerator, late", "late", "no stacks"])
def test_less_to_see_leaves_more_unknown_and_not_more_wrong(ranks: dict[str, RankTrace], name: str) -> None:
    found = _view(ranks, name)
    assert meets_targets(found), [one.wrong_share for one in found]


def test_every_step_is_found_although_the_last_has_no_frames(ranks: dict[str, RankTrace]) -> None:
    for rank in ranks.values():
        table = rank.table("steps")
        recorded = int(np.count_nonzero((table["step"] > 0) & table["recorded"]))
        assert compare(rank, as_recorded(rank), "cpu").num_steps == recorded


def test_nothing_of_the_hooks_is_left_to_see(ranks: dict[str, RankTrace]) -> None:
    for rank in ranks.values():
        seen = as_recorded(rank)
        assert not any(len(seen.table(name)) for name in ("owners", "saved", "steps", "phases", "scopes", "optimizers"))
        assert len(seen.table("windows")) == 1
        assert len(seen.table("events")) == len(rank.table("events"))


def test_translated_recording_has_the_same_answer(ranks: dict[str, RankTrace]) -> None:
    rank = ranks[NAMES[0]]
    moved = build_history(as_on_accelerator(rank), DEVICE, owns_marks=True)
    own = build_history(rank, "cpu", owns_marks=True)
    stop = len(moved.moments)
    for category in (Category.PARAMETER, Category.GRADIENT, Category.OPTIMIZER_STATE):
        rows = [history.attribution.category == CATEGORIES.index(category) for history in (own, moved)]
        started = [
            np.sort(history.lifetimes.size_bytes[chosen & (history.lifetimes.start < stop)])
            for history, chosen in zip((own, moved), rows, strict=True)
        ]
        assert started[0].tolist() == started[1].tolist()


def test_comparison_counts_wrong_unknown_and_unanswered_bytes_apart() -> None:
    matrix = np.zeros((len(CATEGORIES), len(CATEGORIES)), np.int64)
    parameter, gradient, unknown = (
        CATEGORIES.index(one) for one in (Category.PARAMETER, Category.GRADIENT, Category.UNKNOWN)
    )
    matrix[parameter, parameter], matrix[parameter, gradient], matrix[parameter, unknown] = 70, 15, 10
    matrix[unknown, gradient] = 5
    found = Comparison(peak=matrix, byte_moments=matrix.T, num_steps=1)
    assert (found.wrong_share, found.unknown_share, found.unanswered_share) == (0.15, 0.10, 0.05)
    assert found.wrong_share_of_byte_moments == 0.15


def test_a_wrong_inference_is_seen(ranks: dict[str, RankTrace], monkeypatch: pytest.MonkeyPatch) -> None:
    rank = ranks[NAMES[1]]
    monkeypatch.setattr("memtrace.analysis.attribution.inference.match_sizes", lambda rows, *_, **__: rows[:0])
    found = compare(rank, as_recorded(rank), "cpu")
    assert found.unknown_share > MAX_UNKNOWN


def test_late_history_counts_what_lived_before_it(ranks: dict[str, RankTrace], tmp_path: Path) -> None:
    rank = ranks[NAMES[1]]
    seen = late(rank, "cpu")
    history, own = (build_history(one, "cpu", owns_marks=True) for one in (seen, rank))
    skipped = len(own.moments) - len(history.moments)
    assert history.levels.requested.tolist() == own.levels.requested[skipped:].tolist()
