"""Results of operators that are kept in modules which are computed again: what that is worth, and when it is tried."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations

import pytest

pytest.importorskip("scipy")

from memtrace.forecast.fixing.build_model import build_step_model
from memtrace.forecast.fixing.needs import predicted_needs
from memtrace.forecast.fixing.results import Fixed
from memtrace.forecast.fixing.search import KEPT, Question, Run, RunFailed, find_fix
from memtrace.forecast.fixing.solve import cheapest, smallest
from memtrace.forecast.fixing.step_model import StepModel, by_way, saved_name
from memtrace.schema.changes import Changes
from tests.forecast.stepped_run import KIB, PRODUCT, run_of_blocks

DEVICE = "cuda:0"
BLOCKS = 5


def model_of(**changed: object) -> StepModel:
    rank, survey = run_of_blocks(BLOCKS, product=400 * KIB, **changed)  # type: ignore[arg-type]
    return build_step_model(rank, DEVICE, survey, unsaved=())


@pytest.mark.parametrize("count", range(BLOCKS))
def test_the_promised_peak_is_that_of_the_step_that_keeps_them(count: int) -> None:
    model = model_of()
    again = [f"blocks.{at}" for at in range(BLOCKS - 1)]
    saved = [f"{name}:{PRODUCT}" for name in again[:count]]
    chosen = [*again, *(saved_name(name, PRODUCT) for name in again[:count])]
    # The temporaries of a second forward are counted until its backward frees: the gradient there is made beside them.
    over = int(model.level_with(chosen).max()) - model_of(again=again, saved=saved).peak_bytes
    assert 0 <= over <= 10 * KIB
    whole = model.cost_of(again)
    assert model.cost_of(chosen) == pytest.approx(whole * (1 - 0.8 * count / len(again)))


def test_no_choice_with_results_is_cheaper() -> None:
    model = model_of()
    modules = [one.name for one in model.modules.candidates]
    for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        target = int(model.peak_bytes * share)
        costs = []
        for again in chain.from_iterable(combinations(modules, count) for count in range(len(modules) + 1)):
            for kept in chain.from_iterable(combinations(again, count) for count in range(len(again) + 1)):
                chosen = [*again, *(saved_name(name, PRODUCT) for name in kept)]
                if int(model.level_with(chosen).max()) <= target:
                    costs.append(model.cost_of(chosen))
        found = cheapest(model, target)
        assert (found is None) is (not costs)
        if found is not None:
            assert found.peak_bytes <= target
            # The solver stops within a hundredth of the best, and takes fewer of what costs the same.
            assert found.cost_s <= min(costs) * 1.02 + 1e-6
            ways = by_way(found.chosen)
            assert {one.rpartition(":")[0] for one in ways.saved} <= set(ways.recompute)


def test_the_smallest_peak_keeps_nothing() -> None:
    assert not by_way(smallest(model_of()).chosen).saved


def test_what_is_no_longer_needed_or_cannot_stand_for_a_second_run_is_not_kept() -> None:
    rank, survey = run_of_blocks(BLOCKS, product=400 * KIB)
    never = replace(survey, operators=tuple(replace(one, can_be_kept=False) for one in survey.operators))
    assert build_step_model(rank, DEVICE, never, unsaved=()).modules.candidates == (
        build_step_model(rank, DEVICE, never, unsaved=()).candidates
    )
    assert all(one.within is None for one in build_step_model(rank, DEVICE, survey, unsaved={PRODUCT}).candidates)
    # An operator whose result comes after all that backward needs is not reached again: nothing is saved by it.
    last = tuple(
        replace(one, results=call.outputs or (), time_ns=call.end_ns)
        for one, call in zip(survey.operators, survey.calls, strict=True)
    )
    model = build_step_model(rank, DEVICE, replace(survey, operators=last), unsaved=())
    assert all(one.within is None for one in model.candidates)
    assert {round(one.cost_s, 6) for one in model.candidates} == {0.002}


class Program:
    """Blocks that run as they are told."""

    def __init__(self, budget: int, *, tells: bool) -> None:
        self.budget, self.tells = budget, tells
        self.ran: list[Changes] = []
        self.watched: list[Changes] = []

    def run(self, changes: Changes) -> Run:
        self.ran.append(changes)
        return self._run(changes, tells=self.tells)

    def watch(self, changes: Changes) -> Run:
        self.watched.append(changes)
        return self._run(changes, tells=True)

    def _run(self, changes: Changes, *, tells: bool) -> Run:
        rank, survey = run_of_blocks(BLOCKS, product=400 * KIB, again=changes.recompute, saved=changes.saved)
        if not tells:
            survey = replace(survey, operators=())
        needs = predicted_needs(rank, DEVICE, self.budget, survey.step_s)
        return Run(rank=rank, device=DEVICE, survey=survey, needs=needs)

    def find(self) -> Fixed:
        question = Question(
            command=("python", "train.py"),
            budget_bytes=self.budget,
            target_bytes=self.budget,
            device="GPU",
            keep=frozenset(KEPT),
            is_predicted=False,
            micro_batch=None,
        )
        return find_fix(question, self.run, lambda _: None, None if self.tells else self.watch)


def budget() -> int:
    """Return what the program reserves whose blocks are computed again but for their products."""
    again = tuple(f"blocks.{at}" for at in range(BLOCKS - 1))
    rank, _ = run_of_blocks(BLOCKS, product=400 * KIB, again=again, saved=[f"{name}:{PRODUCT}" for name in again])
    return predicted_needs(rank, DEVICE, 1 << 40, None).reserved_bytes


@pytest.mark.parametrize("tells", [True, False])
def test_what_is_quicker_than_modules_alone_is_run_and_comes_first(tells: bool) -> None:
    program = Program(budget(), tells=tells)
    best = program.find().best
    assert best is not None
    assert best.changes.saved
    assert best.changes in program.ran
    whole = [one for one in program.find().rungs if one.needs.fits and one.changes.recompute and not one.changes.saved]
    assert whole
    assert all(best.slowdown < one.slowdown for one in whole)  # type: ignore[operator]
    # The program is watched where its runs do not tell of operators, and no more often than that.
    assert bool(program.watched) is not tells


def test_results_that_fail_are_left_out_and_the_modules_stay() -> None:
    class Failing(Program):
        def run(self, changes: Changes) -> Run:
            if changes.saved:
                self.ran.append(changes)
                raise RunFailed("exit status 1", {"blocks.0": "it has been written to"})
            return super().run(changes)

    program = Failing(budget(), tells=True)
    found = program.find()
    assert found.best is not None
    assert found.best.changes.recompute
    assert not found.refused
    assert sum(bool(one.saved) for one in program.ran) == 1
    assert [one.why for one in found.missed] == ["exit status 1"]


@pytest.mark.parametrize("repeats", [True, False])
def test_losses_are_compared_where_the_program_repeats_itself(repeats: bool) -> None:
    class Unseeded(Program):
        def _run(self, changes: Changes, *, tells: bool) -> Run:
            found = super()._run(changes, tells=tells)
            # The plain program gives 1; what is run later gives 2, and the plain program again only if it draws anew.
            is_first = changes.is_nothing and (repeats or not self.watched)
            loss = (1.0 if is_first else 2.0).hex()
            return replace(found, needs=replace(found.needs, losses=((loss,),)))

    found = Unseeded(budget(), tells=False).find()
    assert (found.best is None) is repeats
    assert any("from run to run" in note for note in found.notes) is not repeats
    if found.best is not None:
        assert found.best.losses_equal is None
