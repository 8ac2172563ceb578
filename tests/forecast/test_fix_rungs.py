"""Which changes a search tries, and in which order: what a program can take and could gain by, and may be changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("scipy")

from memtrace.forecast.fixing.build_model import build_step_model
from memtrace.forecast.fixing.needs import predicted_needs
from memtrace.forecast.fixing.results import Fixed
from memtrace.forecast.fixing.search import KEPT, LOSS_TOLERANCE, Question, Run, RunFailed, find_fix
from memtrace.forecast.fixing.step_model import by_way, with_host
from memtrace.schema.changes import STEP, Changes
from tests.forecast.stepped_run import KIB, run_of_blocks

DEVICE = "cuda:0"
BASE, LESS = 40 * 1024 * KIB, 6 * 1024 * KIB
FACTS = {"loss_bytes": BASE, "against_step_in_backward": ""}


class Program:
    """A program of blocks that needs less with each change it takes."""

    def __init__(self, budget: int, facts: Mapping[str, Any] = FACTS, **asked: Any) -> None:
        self.ran: list[Changes] = []
        self.budget = budget
        self.facts = facts
        self.losses: dict[Changes, str] = {}
        self.question = Question(
            command=("python", "train.py"),
            budget_bytes=budget,
            target_bytes=budget,
            device=f"{budget} B",
            keep=asked.pop("keep", frozenset()),
            is_predicted=False,
            micro_batch=asked.pop("micro_batch", None),
            **asked,
        )

    def run(self, changes: Changes) -> Run:
        self.ran.append(changes)
        base = BASE - LESS * changes.chunk_loss - LESS * changes.step_in_backward
        if changes.micro_batch is not None:
            base = base * changes.micro_batch // (self.question.micro_batch or 1)
        # What waits on the host is away as what is computed again is.
        rank, survey = run_of_blocks(4, base=base, again=(*changes.recompute, *changes.offload))
        survey = replace(survey, facts=self.facts)
        needs = predicted_needs(rank, DEVICE, self.budget, survey.step_s)
        loss = self.losses.get(changes, (1.0).hex())
        needs = replace(needs, by_category={"gradient": LESS}, losses=((loss,),))
        return Run(rank=rank, device=DEVICE, survey=survey, needs=needs)

    def find(self) -> Fixed:
        return find_fix(self.question, self.run, lambda _: None)


def needed(*, less: int = 0) -> int:
    """Return what the program reserves with `less` changes."""
    rank, _ = run_of_blocks(4, base=BASE - less * LESS)
    return predicted_needs(rank, DEVICE, 1 << 40, None).reserved_bytes


def test_each_change_is_tried_with_those_before_it_until_it_fits() -> None:
    one = Program(needed(less=1))
    assert one.find().best is not None
    assert one.ran == [Changes(), Changes(chunk_loss=True)]
    two = Program(needed(less=2))
    best = two.find().best
    assert best is not None
    assert best.changes == Changes(chunk_loss=True, step_in_backward=True)
    assert two.ran[1:] == [Changes(chunk_loss=True), best.changes]


def test_what_they_leave_is_found_by_computing_again() -> None:
    program = Program(needed(less=2) - 2048 * KIB)
    best = program.find().best
    assert best is not None
    assert best.changes.chunk_loss
    assert best.changes.step_in_backward
    assert best.changes.recompute


@pytest.mark.parametrize(("slower", "is_tried"), [(0.005, False), (0.5, True)])
def test_computing_again_is_tried_where_it_promises_to_be_quicker(slower: float, is_tried: bool) -> None:
    class Slow(Program):
        def run(self, changes: Changes) -> Run:
            found = super().run(changes)
            step_s = (found.needs.step_s or 1.0) + slower * changes.chunk_loss
            return replace(found, needs=replace(found.needs, step_s=step_s))

    program = Slow(needed() - 2048 * KIB, keep=frozenset({"optimizer", "precision"}))
    best = program.find().best
    assert any(one.recompute for one in program.ran) is is_tried
    assert best is not None
    assert best.changes.chunk_loss is not is_tried


def test_nothing_is_run_twice() -> None:
    for less in range(0, 5 * 1024 * KIB, 500 * KIB):
        program = Program(needed(less=2) - less)
        program.find()
        assert len(set(program.ran)) == len(program.ran)


@pytest.mark.parametrize(
    ("facts", "keep", "never"),
    [
        ({**FACTS, "loss_bytes": 1}, (), "chunk_loss"),
        ({"against_step_in_backward": ""}, (), "chunk_loss"),
        ({**FACTS, "against_step_in_backward": "it clips"}, (), "step_in_backward"),
        ({"loss_bytes": BASE}, (), "step_in_backward"),
        (FACTS, ("optimizer",), "step_in_backward"),
    ],
)
def test_what_a_program_cannot_take_is_not_tried(facts: dict[str, Any], keep: tuple[str, ...], never: str) -> None:
    program = Program(needed(less=2), facts, keep=frozenset({*keep, "precision"}))
    found = program.find()
    assert not any(getattr(one, never) for one in program.ran)
    assert [note for note in found.notes if "it clips" in note] == (
        ["gradients are not freed in backward: it clips"] if "it clips" in facts.values() else []
    )


def test_a_step_that_could_not_be_made_so_is_no_rung() -> None:
    class Refusing(Program):
        def run(self, changes: Changes) -> Run:
            found = super().run(changes)
            if changes.step_in_backward:
                return replace(found, survey=replace(found.survey, failed={STEP: "several optimizers"}))
            return found

    found = Refusing(needed(less=2), keep=frozenset(KEPT) - {"optimizer"}).find()
    assert not any(one.changes.step_in_backward for one in found.rungs)
    assert any("several optimizers" in one.why for one in found.missed)


def test_a_step_that_fails_blames_no_module() -> None:
    class Failing(Program):
        def run(self, changes: Changes) -> Run:
            if changes.step_in_backward:
                raise RunFailed("exit status 1", {STEP: "more than one backward"})
            return super().run(changes)

    found = Failing(needed(less=1) - 2048 * KIB).find()
    assert found.best is not None
    assert not found.refused


@pytest.mark.parametrize(("loss", "holds"), [(1.0 + LOSS_TOLERANCE / 2, True), (1.0 + 2 * LOSS_TOLERANCE, False)])
def test_a_loss_by_parts_may_round_and_no_more(loss: float, holds: bool) -> None:
    program = Program(needed(less=1), keep=frozenset({"optimizer", "precision"}))
    program.losses[Changes(chunk_loss=True)] = loss.hex()
    found = program.find()
    rungs = [one for one in found.rungs if one.changes == Changes(chunk_loss=True)]
    assert [one.losses_equal for one in rungs] == ([False] if holds else [])
    assert bool(found.missed) is not holds


def test_with_accumulation_only_whole_steps_are_tried() -> None:
    program = Program(
        KIB, {}, micro_batch=12, accumulation=2, keep=frozenset({"precision", "optimizer"})
    )  # nothing fits in so little
    program.find()
    tried = dict.fromkeys((one.micro_batch, one.accumulation) for one in program.ran if one.micro_batch)
    assert list(tried) == [(6, 4), (4, 6), (3, 8), (2, 12), (1, 24)]
    found = Program(needed() * 3 // 4, {}, micro_batch=12, accumulation=2, keep=frozenset({"precision"})).find()
    assert found.best is not None


STATES = 12 * 1024 * KIB


class Adam(Program):
    """A program whose states are large, and smaller in 8 bits; `differs` by so much of its losses then."""

    differs = 1e-4

    def run(self, changes: Changes) -> Run:
        self.ran.append(changes)
        rank, survey = run_of_blocks(4, base=BASE - changes.small_states * STATES * 3 // 4, again=changes.recompute)
        needs = predicted_needs(rank, DEVICE, self.budget, survey.step_s)
        loss = (1.0 + self.differs * changes.small_states).hex()
        needs = replace(needs, by_category={"optimizer_state": STATES}, losses=((loss,),))
        return Run(rank=rank, device=DEVICE, survey=replace(survey, facts=self.facts), needs=needs)


SHRINKS = {"has_bitsandbytes": True, "optimizers": [{"against_small_states": None}]}


@pytest.mark.parametrize(
    ("facts", "keep", "said"),
    [
        ({"has_bitsandbytes": False}, {"precision"}, "precision is to be kept"),
        (SHRINKS, {"optimizer", "precision"}, "optimizer is to be kept"),
        ({"has_bitsandbytes": False}, (), "pip install bitsandbytes"),
        ({**SHRINKS, "optimizers": [{"against_small_states": "its lr is a tensor"}]}, (), "its lr is a tensor"),
    ],
)
def test_where_nothing_fits_it_is_said_why_states_stay(facts: dict[str, Any], keep: Any, said: str) -> None:
    program = Adam(KIB, facts, keep=frozenset(keep))
    assert [note for note in program.find().notes if said in note]
    assert not any(one.small_states for one in program.ran)
    # Of what fits, and of small states, nothing is said.
    assert not Adam(1 << 40, facts).find().notes
    assert not Program(KIB, {**facts, "optimizers": []}, keep=frozenset(KEPT)).find().notes


def test_states_in_8_bits_come_after_what_changes_no_loss_and_before_precision() -> None:
    # Modules that are computed again are not enough.
    program = Adam(needed() - STATES * 2 // 3, SHRINKS)
    found = program.find()
    assert found.best is not None
    assert found.best.changes.small_states
    assert found.best.losses_equal is False
    assert any("0.0001" in note and "0.01" in note for note in found.notes)
    assert not any(one.autocast for one in program.ran)
    assert not any(one.small_states for one in program.ran[:2])


def test_states_that_train_otherwise_than_may_be_are_no_rung() -> None:
    program = Adam(needed() - STATES * 2 // 3, SHRINKS)
    program.differs = 0.02
    found = program.find()
    assert not any(one.changes.small_states and one.changes.autocast is None for one in found.rungs)
    assert any("by 0.02 of it" in one.why for one in found.missed)


@pytest.mark.parametrize(
    ("facts", "keep", "is_tried"),
    [
        ({"against_sharded_states": ""}, (), True),
        ({"against_sharded_states": ""}, ("optimizer",), False),
        ({"against_sharded_states": "no DDP"}, (), False),
        ({}, (), False),
    ],
)
def test_ranks_share_states_where_they_train_alike(facts: dict[str, Any], keep: Any, is_tried: bool) -> None:
    program = Adam(KIB, facts, keep=frozenset({"precision", *keep}))
    found = program.find()
    assert any(one.sharded_states for one in program.ran) is is_tried
    assert any("no DDP" in note for note in found.notes) is ("no DDP" in facts.values())


def test_on_the_host_nothing_is_computed_and_a_module_is_changed_in_one_way() -> None:
    rank, survey = run_of_blocks(4, temporary=900 * KIB)
    model = build_step_model(rank, DEVICE, survey)
    both = with_host(model)
    assert len(both.candidates) == 2 * len(model.candidates)
    names = {one.name for one in both.candidates}
    for one in both.candidates:
        ways = by_way([one.name])
        assert len(ways.recompute) + len(ways.offload) == 1
        (twin,) = (
            other
            for other in names - {one.name}
            if (by_way([other]).offload, by_way([other]).recompute) == (ways.recompute, ways.offload)
        )
        assert twin in one.around
        assert bool(one.spikes) is bool(ways.recompute)
