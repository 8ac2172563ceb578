"""The model of a step against a step that was really changed so, and the search that runs what the model promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

pytest.importorskip("scipy")

from memtrace.forecast.fixing.build_model import build_step_model
from memtrace.forecast.fixing.needs import predicted_needs
from memtrace.forecast.fixing.results import Fixed
from memtrace.forecast.fixing.search import KEPT, Question, Run, RunFailed, find_fix
from memtrace.schema.changes import Changes
from tests.forecast.stepped_run import KIB, run_of_blocks

BLOCKS = 8
DEVICE = "cuda:0"


@pytest.mark.parametrize("again", [(), ("blocks.0",), ("blocks.0", "blocks.1", "blocks.5"), ("blocks.7",)])
def test_the_promised_peak_is_that_of_the_changed_step(again: tuple[str, ...]) -> None:
    model = build_step_model(*_at(run_of_blocks(BLOCKS)))
    changed = build_step_model(*_at(run_of_blocks(BLOCKS, again=again)))
    assert int(model.level_with(again).max()) == changed.peak_bytes
    # What the last block keeps is needed at once.
    assert [one.name for one in model.candidates] == [f"blocks.{at}" for at in range(BLOCKS - 1)]


def _at(made: tuple) -> tuple:  # type: ignore[type-arg]
    rank, survey = made
    return rank, DEVICE, survey


def test_what_keeps_nothing_or_is_refused_is_no_candidate() -> None:
    rank, survey = run_of_blocks(3)
    model = build_step_model(rank, DEVICE, replace(survey, refused={"blocks.1": "it counts"}), excluded=["blocks.2"])
    assert [one.name for one in model.candidates] == ["blocks.0"]
    assert build_step_model(*_at(run_of_blocks(3, kept=0))).candidates == ()


def question(budget: int, **changed: object) -> Question:
    plain = Question(
        command=("python", "train.py"),
        budget_bytes=budget,
        target_bytes=budget,
        device=f"{budget} B",
        keep=frozenset(KEPT),
        is_predicted=False,
        micro_batch=None,
    )
    return replace(plain, **changed)  # type: ignore[arg-type]


def search(budget: int, refuse: Callable[[Changes], None] = lambda _: None) -> tuple[Fixed, list[Changes]]:
    """Return the answer for blocks that run as they are told, and what was run."""
    ran: list[Changes] = []

    def run(changes: Changes) -> Run:
        ran.append(changes)
        refuse(changes)
        rank, survey = run_of_blocks(BLOCKS, again=changes.recompute)
        return Run(rank=rank, device=DEVICE, survey=survey, needs=predicted_needs(rank, DEVICE, budget, survey.step_s))

    return find_fix(question(budget), run, lambda _text: None), ran


def _reserved() -> int:
    rank, _ = run_of_blocks(BLOCKS)
    return predicted_needs(rank, DEVICE, 1 << 40, None).reserved_bytes


def test_what_fits_is_left_as_it_is() -> None:
    found, ran = search(_reserved())
    assert found.best is not None
    assert found.best.changes.is_nothing
    assert ran == [Changes()]


def test_the_answer_was_run_and_fits() -> None:
    budget = _reserved() * 2 // 3
    found, ran = search(budget)
    assert found.best is not None
    assert found.best.needs.reserved_bytes <= budget
    assert found.best.changes in ran
    # The first blocks keep what they keep for longest.
    chosen = found.best.changes.recompute
    assert chosen == tuple(f"blocks.{at}" for at in range(len(chosen)))
    assert found.best.slowdown == pytest.approx(0.01 * len(chosen), abs=1e-6)


def test_a_module_that_fails_is_left_out_and_the_search_goes_on() -> None:
    def refuse(changes: Changes) -> None:
        if "blocks.0" in changes.recompute:
            raise RunFailed("exit status 1", {"blocks.0": "it refuses"})

    found, _ = search(_reserved() * 2 // 3, refuse)
    assert found.best is not None
    assert "blocks.0" not in found.best.changes.recompute
    assert found.refused["blocks.0"] == "it refuses"
    assert [one.why for one in found.missed] == ["exit status 1"]


def test_what_nothing_meets_is_refused_with_the_smallest() -> None:
    found, _ = search(1000 * KIB)
    assert found.best is None
    assert found.smallest_bytes == min(one.needs.reserved_bytes for one in found.rungs)
    assert found.smallest_bytes < _reserved()
