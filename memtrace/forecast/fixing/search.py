"""The search of `memtrace fix`: which changes to run next, and what to make of what a run says.

In: a function that runs the program under changes, and the budget. Out: `Fixed`. Nothing is proposed that was not run
and held. What costs nothing comes first; then what costs little, a loss by parts and a step in backward; then modules
that are computed again or wait on the host, chosen by `solve.py` for a target that each miss corrects; then, unless
they are to be kept, precision and micro-batch, each with the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from math import inf, isfinite
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.fixing.build_model import build_step_model
from memtrace.forecast.fixing.results import Fixed, Measured, Missed, Rung
from memtrace.forecast.fixing.solve import Solution, cheapest, smallest
from memtrace.forecast.fixing.step_model import StepModel, by_way, with_host
from memtrace.forecast.fixing.survey import Survey, program_of, with_costs_of
from memtrace.schema.changes import STATES, STEP, Changes
from memtrace.store.trace import RankTrace

EXPANDABLE = "expandable_segments:True"
PRECISION, BATCH, ROUNDING, OPTIMIZER = "precision", "batch", "rounding", "optimizer"
KEPT = (PRECISION, BATCH, ROUNDING, OPTIMIZER)
"""What `--keep` may name."""
_MOST_TRIES = 6
"""Runs in which a choice of modules is corrected."""
_NEAR = 0.02
"""Within this share below the target, a choice is near enough."""
LOSS_TOLERANCE = 1e-5
"""Share by which a loss may differ that is taken by parts: a GPU may sum fewer rows in another order."""
STATES_TOLERANCE = 0.01
"""Share by which a loss may differ where states of the optimizer have 8 bits."""
_STATES = 20
"""They are tried in 8 bits where they are at least this part of the peak."""
_WORTH = 0.005
"""A change that takes less than this share off is left out of what is tried after it."""
_QUICKER = 0.005
"""Results of operators are kept where that promises to save at least this share of a step."""
_PART = 0.01
"""What a change could free is at least this share of the peak, or it is not tried."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What one run of the changed program left."""

    rank: RankTrace
    """The trace of the process that trained."""
    device: str
    """The device whose memory counts."""
    survey: Survey
    """Its module calls."""
    needs: Measured
    """What it needs, judged by the target."""


class RunFailed(Exception):
    """A changed program failed; `modules` are those at fault, and why, where that is known."""

    def __init__(self, why: str, modules: Mapping[str, str]) -> None:
        super().__init__(why)
        self.why = why
        self.modules = modules


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be found."""

    command: tuple[str, ...]
    """The program."""
    budget_bytes: int
    """Memory that its allocator may take."""
    target_bytes: int
    """The budget less the margin: what `fits` of a run is judged by."""
    device: str
    """What the budget is of."""
    keep: frozenset[str]
    """What may not be changed, of `KEPT`."""
    is_predicted: bool
    """Whether runs are predictions."""
    micro_batch: int | None
    """What stands for {mbs}; `None` where the command has none."""
    accumulation: int | None = None
    """What stands for {accum}; `None` where the command has none."""


@dataclass
class _Search:
    question: Question
    run: Callable[[Changes], Run]
    say: Callable[[str], None]
    watch: Callable[[Changes], Run] | None = None
    plain: Run | None = None
    rungs: list[Rung] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    unsaved: set[str] = field(default_factory=set)
    repeatable: bool | None = None
    notes: list[str] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)

    def find(self) -> Fixed:
        self.plain = self.run(Changes())
        self._note(Changes(), self.plain, None)
        if not self.plain.needs.fits:
            free = self._free(Changes(), self.plain)
            base = self._little(*free)
            if not self._has_fit:
                self._recompute(*base)
            if base[0] != free[0]:
                self._recompute_if_cheaper(*free)
            for change in self._last_resorts():
                if self._has_fit:
                    break
                self._with(change)
        if not self._has_fit and (why := self._against_small_states(self.plain)):
            self._say_once(f"optimizer states are not tried in 8 bits: {why}")
        return self._answer()

    def _against_small_states(self, found: Run) -> str | None:
        """Return why states of optimizers are not tried in 8 bits; empty where they are too small to say so."""
        needs, facts = found.needs, found.survey.facts
        if needs.by_category.get("optimizer_state", 0) * _STATES < needs.peak_bytes:
            return ""
        if kept := self.question.keep & {OPTIMIZER, PRECISION}:
            return f"{min(kept)} is to be kept"
        if not facts.get("has_bitsandbytes"):
            return "they need bitsandbytes, which is not installed: pip install bitsandbytes"
        reasons = [one["against_small_states"] for one in found.survey.optimizers if one.get("against_small_states")]
        return reasons[0] if reasons else None

    @property
    def _has_fit(self) -> bool:
        return any(one.needs.fits for one in self.rungs)

    def _free(self, start: Changes, found: Run) -> tuple[Changes, Run]:
        """Return the changes that cost nothing, and the run that is the nearest to one with them."""
        changes = self._free_changes(start, found.survey)
        if changes == start:
            return start, found
        model = self._model(found, changes)
        scale = found.needs.peak_bytes / max(model.peak_bytes, 1)
        facts = found.survey.facts
        may_do = model.peak_bytes * min(scale, 1.05) <= self.question.target_bytes
        if not may_do and not (facts.get("has_cache") or facts.get("fills_gradients")):
            return changes, found
        tried = self._try(changes, None)
        # Without its cache a model may fail: what its program makes of it is not known.
        return (replace(changes, no_cache=start.no_cache), found) if tried is None else (changes, tried)

    def _little(self, start: Changes, found: Run) -> tuple[Changes, Run]:
        """Return the changes that cost little and make the run smaller, each with those before it, until it fits."""
        for change in self._little_changes(found):
            if found.needs.fits:
                break
            changes = replace(start, **change)
            tried = self._try(changes, None)
            if tried is not None and tried.needs.reserved_bytes < found.needs.reserved_bytes * (1 - _WORTH):
                start, found = changes, tried
        return start, found

    def _little_changes(self, found: Run) -> list[dict[str, Any]]:
        facts, needs = found.survey.facts, found.needs
        changes: list[dict[str, Any]] = []
        may_step = OPTIMIZER not in self.question.keep
        if (facts.get("loss_bytes") or 0) > _PART * needs.peak_bytes:
            changes.append({"chunk_loss": True})
        if may_step and needs.by_category.get("optimizer_state", 0) > _PART * needs.peak_bytes:
            why = facts.get("against_sharded_states")
            if why:
                self._say_once(f"optimizer states are not shared between ranks: {why}")
            elif why is not None:
                changes.append({"sharded_states": True})
        why = facts.get("against_step_in_backward")
        if not may_step or needs.by_category.get("gradient", 0) <= _PART * needs.peak_bytes:
            return changes
        if why:
            self._say_once(f"gradients are not freed in backward: {why}")
        elif why is not None:
            changes.append({"step_in_backward": True})
        return changes

    def _say_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _free_changes(self, start: Changes, survey: Survey) -> Changes:
        keep, changes, facts = self.question.keep, start, survey.facts
        if self.question.is_predicted:
            changes = replace(changes, allocator=EXPANDABLE)
        has_kernels = any(one.get("foreach") for one in survey.optimizers) and not start.small_states
        if has_kernels and self.question.is_predicted and OPTIMIZER not in keep:
            can_fuse = all(one.get("can_fuse") for one in survey.optimizers) and ROUNDING not in keep
            changes = replace(changes, optimizer="fused" if can_fuse else "loop")
        if facts.get("fills_gradients"):
            changes = replace(changes, set_to_none=True)
        if facts.get("has_cache"):
            changes = replace(changes, no_cache=True)
        return changes

    def _last_resorts(self) -> list[Changes]:
        assert self.plain is not None
        question, found = self.question, []
        can_shrink = self._against_small_states(self.plain) is None
        if can_shrink:
            found.append(Changes(small_states=True))
        if PRECISION not in question.keep:
            found += [Changes(autocast="bfloat16", small_states=small) for small in (False, True)[: 1 + can_shrink]]
        if BATCH not in question.keep:
            found += [_micro_batch(question, size) for size in _smaller(question)]
        return found

    def _with(self, start: Changes) -> None:
        """Try a change that costs more than time, alone and with all before it."""
        self.say(f"trying {title_of(start)}")
        assert self.plain is not None
        found = self._try(self._free_changes(start, self.plain.survey), None)
        if found is not None and not found.needs.fits:
            base = self._little(self._free_changes(start, found.survey), found)
            if not base[1].needs.fits:
                self._recompute(*base)

    def _recompute(self, start: Changes, found: Run) -> None:
        """Choose modules to compute again until a choice holds, and then one that is as cheap as can be."""
        model = self._model(found, start)
        held = self._choose(start, found, model, self._aim(model, found))
        if held is not None:
            self._keep_results(start, found, *held)

    def _keep_results(self, start: Changes, found: Run, aim: int, held: Solution) -> None:
        """Where it promises to be quicker: compute the same modules again but for what some of their operators give."""
        watched = self._watched(start, found)
        if watched is None:
            return
        model = self._model(watched, start, with_results=True)
        # Both are judged by what is known of operators, and the aim by what a run has shown it to be worth.
        choice = cheapest(model, aim)
        least = _QUICKER * (model.step_s or 0.0)
        if choice is not None and by_way(choice.chosen).saved and model.cost_of(held.chosen) - choice.cost_s > least:
            self._choose(start, watched, model, aim)

    def _watched(self, start: Changes, found: Run) -> Run | None:
        """Return a run whose operators are known; `None` where they cannot be."""
        if self.watch is None:
            return found if found.survey.operators else None
        self.say("running with operators watched, which results to keep")
        try:
            watched = self.watch(start)
        except (RunFailed, MemtraceError):
            # It runs by itself: what a mode of torch's dispatcher does to it is no reason to end the search.
            return None
        if not watched.survey.operators:
            return None
        if watched.device == "cpu":
            # To be watched takes time of its own.
            watched = replace(watched, survey=with_costs_of(watched.survey, found.survey))
        return replace(watched, needs=replace(found.needs, losses=watched.needs.losses))

    def _choose(self, start: Changes, found: Run, model: StepModel, aim: int) -> tuple[int, Solution] | None:
        """Run choices of a model, each corrected by the last; return the largest aim that held, and its choice."""
        keeps = any(one.within for one in model.candidates)
        low: tuple[int, Solution] | None = None
        high: int | None = None
        seen: set[tuple[str, ...]] = set()
        is_wide = False
        for _ in range(_MOST_TRIES):
            choice = cheapest(model, aim)
            if choice is None and found.device != "cpu" and not is_wide:
                model, is_wide = with_host(model), True
                choice = cheapest(model, aim)
            if choice is None:
                choice = smallest(model)
                if choice.chosen in seen or low is not None or not choice.chosen:
                    break
            if choice.chosen in seen:
                break
            seen.add(choice.chosen)
            ways = by_way(choice.chosen)
            # That nothing needs to be changed for this aim is known to be a miss.
            changes = replace(start, recompute=ways.recompute, saved=ways.saved, offload=ways.offload)
            tried = self._try(changes, choice) if choice.chosen else found
            if tried is None:
                model = self._model(found, start, with_results=keeps)
                model = with_host(model) if is_wide else model
                continue
            if tried.needs.fits:
                low = max(low or (aim, choice), (aim, choice), key=lambda one: one[0])
                slack = self.question.target_bytes - tried.needs.reserved_bytes
                if slack <= _NEAR * self.question.target_bytes:
                    break
                aim = min(aim + slack, (high or aim + slack) - 1)
            else:
                high = min(high or aim, aim)
                over = max(tried.needs.reserved_bytes - self.question.target_bytes, self.question.target_bytes // 100)
                aim = max(choice.peak_bytes - over, 1) if low is None else (low[0] + aim) // 2
            if low is not None and high is not None and high - low[0] < self.question.target_bytes // 200:
                break
        return low

    def _recompute_if_cheaper(self, start: Changes, found: Run) -> None:
        """Where what costs little costs more than computing again alone would: try that too."""
        slowdowns = [one.slowdown for one in self.rungs if one.needs.fits and one.slowdown is not None]
        if not slowdowns or min(slowdowns) <= _PART:
            return
        model = self._model(found, start)
        choice = cheapest(model, self._aim(model, found))
        if choice is not None and model.step_s and choice.cost_s / model.step_s < min(slowdowns) - _PART:
            self._recompute(start, found)

    def _aim(self, model: StepModel, found: Run) -> int:
        """Return the target of the model's level; how much of it the allocator loses in fragments a run will say."""
        return int(self.question.target_bytes * model.peak_bytes / max(found.needs.peak_bytes, model.peak_bytes, 1))

    def _model(self, found: Run, changes: Changes, *, with_results: bool = False) -> StepModel:
        # Where operators are known, a module costs what is run of it again: its second run ends early.
        looks = with_results or bool(found.survey.operators)
        model = build_step_model(
            found.rank,
            found.device,
            found.survey,
            excluded=tuple(self.excluded),
            flat_optimizer=changes.optimizer is not None,
            same_costs=not self.question.is_predicted,
            unsaved=self.unsaved if looks else None,
        )
        model = model if with_results else model.modules
        self.classes |= {one.name: one.class_name for one in model.candidates}
        return model

    def _try(self, changes: Changes, choice: Solution | None) -> Run | None:
        """Run the program under changes; `None` if it fails, which says what to leave out."""
        self.say(f"running with {title_of(changes)}")
        try:
            found = self.run(changes)
        except RunFailed as failure:
            self.missed.append(Missed(title=title_of(changes), why=failure.why))
            if changes.saved:
                # That the modules can be computed again whole was seen before.
                self.unsaved |= {operator for _, operator in changes.saved_by_module()}
                return None
            modules = {*changes.recompute, *changes.offload}
            at_fault = {name: why for name, why in failure.modules.items() if name in modules}
            if not at_fault and not failure.modules.keys() & {STEP, STATES}:
                at_fault = dict.fromkeys(modules, f"a run with it failed: {failure.why}")
            self.excluded |= at_fault
            return None
        for part in (STEP, STATES):
            if (why := found.survey.failed.get(part)) is not None:
                self.missed.append(Missed(title=title_of(changes), why=f"left as before, {part}: {why}"))
                return None
        left_out = {**found.survey.failed, **dict.fromkeys(found.survey.facts.get("missing") or (), "it is not there")}
        changed = (*changes.recompute, *changes.offload)
        self.excluded |= {name: why for name, why in left_out.items() if name in changed}
        if changes.sharded_states:
            self._say_of_shares(found)
        self._note(changes, found, choice)
        return found

    def _say_of_shares(self, found: Run) -> None:
        """Of a prediction, which is of one rank: say what its share and its time leave out."""
        if self.question.is_predicted:
            shares = [tuple(one) for one in found.survey.facts.get("shares") or ()]
            beyond = max((most / own - 1 if own else inf for own, most in shares), default=0.0)
            other = f"; another keeps {beyond:.0%} more states" if beyond >= _PART else ""
            self._say_once(f"of ranks that share states rank 0 is predicted, without the time of what they send{other}")

    def _note(self, changes: Changes, found: Run, choice: Solution | None) -> None:
        assert self.plain is not None
        plain, needs = self.plain.needs, found.needs
        slowdown = None
        if plain.step_s and needs.step_s:
            slowdown = needs.step_s / plain.step_s - 1
            if changes.micro_batch is not None and changes.accumulation is None and self.question.micro_batch:
                # As many sequences take more micro-batches.
                slowdown = (needs.step_s * self.question.micro_batch / changes.micro_batch) / plain.step_s - 1
        equal = None if not plain.losses or not needs.losses else plain.losses == needs.losses
        if equal is False and not self._is_repeatable():
            equal = None
        is_same_work = changes.autocast is None and changes.micro_batch is None
        tolerance = STATES_TOLERANCE if changes.small_states else LOSS_TOLERANCE if changes.chunk_loss else 0.0
        difference = _difference(plain.losses, needs.losses) if equal is False and is_same_work else 0.0
        if 0.0 < difference <= tolerance:
            why = "states of optimizers have 8 bits" if changes.small_states else "a loss is taken by parts"
            self._say_once(f"losses differ, by at most {difference:.1g} of them ({tolerance:g} may be), where {why}")
        if changes.small_states and equal is None and self.question.is_predicted:
            self._say_once("states in 8 bits make other losses, and a prediction computes none: --run compares them")
        if difference > tolerance:
            why = "a loss differs from the plain program's"
            if tolerance:
                why = f"{why} by {difference:.1g} of it, and {tolerance:g} may be"
            self.missed.append(Missed(title=title_of(changes), why=why))
            if changes.saved:
                self.unsaved |= {operator for _, operator in changes.saved_by_module()}
            else:
                self.excluded |= dict.fromkeys(changes.recompute, "a loss differs with it")
            return
        self.rungs.append(
            Rung(
                changes=changes,
                title=title_of(changes),
                needs=needs,
                slowdown=0.0 if found is self.plain else slowdown,
                losses_equal=equal,
                expected_bytes=None if choice is None else choice.peak_bytes,
            )
        )
        self.say(_line(self.rungs[-1]))

    def _is_repeatable(self) -> bool:
        """Return whether the plain program itself gives the same losses twice: it is run again for that, once."""
        if self.repeatable is None:
            self.repeatable = True
            again = None if self.plain is None else self._watched(Changes(), self.plain)
            if again is not None and again.needs.losses and self.plain is not None:
                self.repeatable = again.needs.losses == self.plain.needs.losses
        if not self.repeatable:
            self._say_once("losses of the program itself differ from run to run, so none are compared: give it seeds")
        return self.repeatable

    def _answer(self) -> Fixed:
        assert self.plain is not None
        fitting = sorted(
            (one for one in self.rungs if one.needs.fits),
            key=lambda one: (_rank_of(one.changes), one.slowdown or 0.0, one.needs.reserved_bytes),
        )
        others = sorted((one for one in self.rungs if not one.needs.fits), key=lambda one: one.needs.reserved_bytes)
        question = self.question
        return Fixed(
            command=question.command,
            budget_bytes=question.budget_bytes,
            target_bytes=question.target_bytes,
            device=question.device,
            is_predicted=question.is_predicted,
            is_verified=True,
            plain=self.plain.needs,
            rungs=(*fitting, *others),
            missed=tuple(self.missed),
            refused={**self.plain.survey.refused, **self.excluded},
            smallest_bytes=None if fitting else min(one.needs.reserved_bytes for one in self.rungs),
            notes=tuple(self.notes),
            classes={name: kind for name, kind in self.classes.items() if self._is_changed(name)},
            program=program_of(self.plain.survey),
        )

    def _is_changed(self, name: str) -> bool:
        return any(name in one.changes.recompute or name in one.changes.offload for one in self.rungs)


def find_fix(
    question: Question,
    run: Callable[[Changes], Run],
    say: Callable[[str], None],
    watch: Callable[[Changes], Run] | None = None,
) -> Fixed:
    """Return what can be changed so that the program stays within the budget, each run once; `say` is told as it goes.

    `watch` runs the program with its operators watched, where a run does not tell of them by itself.

    Raises:
        MemtraceError: the plain program cannot be run, or says nothing.
    """
    search = _Search(question, run, say, watch)
    try:
        return search.find()
    except RunFailed as failure:
        raise MemtraceError(failure.why, slug="fix-nothing") from None


def _difference(one: tuple[tuple[str, ...], ...], other: tuple[tuple[str, ...], ...]) -> float:
    """Return the largest share by which a loss differs from the other's; endless where there are not as many."""
    if [len(losses) for losses in one] != [len(losses) for losses in other]:
        return inf
    pairs = ((float.fromhex(a), float.fromhex(b)) for a, b in zip(chain(*one), chain(*other), strict=True) if a != b)
    # Not a number is none that is near.
    shares = [abs(a - b) / max(abs(a), abs(b)) if isfinite(a) and isfinite(b) else inf for a, b in pairs]
    return max(shares, default=0.0)


def _smaller(question: Question) -> list[int]:
    """Return smaller micro-batches, the largest first; only such as make whole steps where accumulation can follow."""
    whole = question.micro_batch or 1
    if question.accumulation is not None:
        return [size for size in range(whole - 1, 0, -1) if whole % size == 0]
    found = [whole]
    while found[-1] > 1:
        found.append((found[-1] + 1) // 2)
    return found[1:]


def _micro_batch(question: Question, size: int) -> Changes:
    if question.accumulation is None:
        return Changes(micro_batch=size)
    return Changes(micro_batch=size, accumulation=question.accumulation * (question.micro_batch or 1) // size)


def _rank_of(changes: Changes) -> int:
    """Return how much more than time a set of changes costs: nothing, that of states, precision, another batch."""
    return 4 * (changes.micro_batch is not None) + 2 * (changes.autocast is not None) + changes.small_states


def title_of(changes: Changes) -> str:
    """Return changes in words.

    >>> title_of(Changes()), title_of(Changes(optimizer="fused", recompute=("a", "b")))
    ('nothing changed', 'fused optimizer, 2 modules computed again')
    """
    kernels = {None: "", "fused": "fused optimizer", "loop": "optimizer one parameter at a time"}[changes.optimizer]
    parts = (
        f"micro-batch {changes.micro_batch}" if changes.micro_batch else "",
        f"{changes.accumulation} of them accumulated" if changes.accumulation else "",
        f"autocast to {changes.autocast}" if changes.autocast else "",
        changes.allocator or "",
        kernels,
        "optimizer states shared by ranks" if changes.sharded_states else "",
        "optimizer states in 8 bits" if changes.small_states else "",
        "gradients freed by zero_grad" if changes.set_to_none else "",
        "loss by parts" if changes.chunk_loss else "",
        "optimizer steps in backward" if changes.step_in_backward else "",
        "no cache of keys and values" if changes.no_cache else "",
        _again(changes) if changes.recompute else "",
        f"{_modules(len(changes.offload))} kept on the host" if changes.offload else "",
    )
    return ", ".join(part for part in parts if part) or "nothing changed"


def _again(changes: Changes) -> str:
    """Return what is computed again.

    >>> _again(Changes(recompute=("a", "b"), saved=("a:aten.mm", "a:aten._scaled_dot_product_flash_attention")))
    '2 modules computed again, 1 of them but for mm and attention'
    """
    parts = changes.saved_by_module()
    again = f"{_modules(len(changes.recompute))} computed again"
    if not parts:
        return again
    owners = {owner for owner, _ in parts}
    operators = dict.fromkeys(_plain(operator) for _, operator in parts)
    which = "" if len(owners) == len(changes.recompute) else f", {len(owners)} of them"
    return f"{again}{which} but for {' and '.join(operators)}"


def _plain(operator: str) -> str:
    name = operator.rpartition(".")[2]
    return "attention" if name.startswith("_scaled_dot_product") else name


def _modules(count: int) -> str:
    return f"{count} module{'' if count == 1 else 's'}"


def _line(rung: Rung) -> str:
    slower = "" if rung.slowdown is None else f", {rung.slowdown:+.1%} time"
    return f"  {rung.needs.reserved_bytes / 2**20:,.0f} MiB{slower}: {'fits' if rung.needs.fits else 'does not fit'}"
