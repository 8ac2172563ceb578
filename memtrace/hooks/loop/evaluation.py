"""Tells evaluation (validation, sampling) from training, by what is measured when a root module is called.

    gradients  model    trained  what it is
    off        eval     yes      evaluation
    off        other             of the training step (a target network, a teacher) if this is the first step, or the
                                 same module ran so in the step before; else evaluation (rollouts, validation)
    on         eval     yes      evaluation, unless a backward comes of it (as with batch norms that are kept frozen)
    on         train    yes      training
    on         any      no       of whatever runs (a loss, a frozen network), training where nothing does

While a training forward runs, whatever is called belongs to it; right after an evaluation, so does what is not trained
(a loss). A module is trained if an optimizer has parameters of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from memtrace.hooks.ownership.module_tree import parameters_in
from memtrace.schema.names import Phase


class Call(Enum):
    """What a call of a root module is."""

    TRAINING = "training"
    PART = "part"
    """Without gradients, and yet of the training step."""
    WITHIN = "within"
    """A part of whatever runs."""
    EVALUATION = "evaluation"
    PERHAPS_EVALUATION = "perhaps evaluation"
    """Evaluation, unless a backward follows."""


class Evaluation:
    """Decides for each call of a root module; remembers which modules run without gradients in each step."""

    def __init__(self, optimizers: Callable[[], Iterable[Any]]) -> None:
        self._optimizers = optimizers
        self._last_step = 0
        self._ran_before: set[tuple[int, bool]] = set()
        self._run_now: set[tuple[int, bool]] = set()
        """Modules that ran without gradients, by identity and mode: in the step before, and in this one."""
        self._trained: dict[int, bool] = {}

    def call(self, module: Any, *, with_gradients: bool, runs: Phase | None, may_be_forward: bool, step: int) -> Call:
        """Return what a call is.

        `runs` is the phase in whose midst it comes, or an evaluation that has just come to its end; `may_be_forward`
        says that this one has a graph.
        """
        self._note(step)
        key = id(module), _is_training(module)
        is_habit = step == 1 or key in self._ran_before
        if with_gradients:
            return self._call_with_gradients(module, runs, may_be_forward)
        self._run_now.add(key)
        if runs not in (None, Phase.EVALUATION) or may_be_forward:
            return Call.WITHIN
        if self._is_trained(module) and not _is_training(module):
            return Call.EVALUATION
        # Right after an evaluation, a loss is of that.
        is_loss = runs is Phase.EVALUATION and next(parameters_in(module), None) is None
        return Call.PART if step > 0 and is_habit and not is_loss else Call.EVALUATION

    def _call_with_gradients(self, module: Any, runs: Phase | None, may_be_forward: bool) -> Call:
        if runs in (Phase.BACKWARD, Phase.DATA):
            return Call.WITHIN
        if not self._is_trained(module):
            return Call.WITHIN if may_be_forward else Call.TRAINING
        return Call.TRAINING if runs is Phase.FORWARD or _is_training(module) else Call.PERHAPS_EVALUATION

    def _note(self, step: int) -> None:
        if step != self._last_step:
            # What runs right before training begins may be of the first step.
            self._ran_before, self._run_now = self._run_now, set(self._run_now) if step == 1 else set()
            self._last_step = step
            # What is trained stays so; what is not may be given to an optimizer yet.
            self._trained = {key: True for key, is_trained in self._trained.items() if is_trained}

    def _is_trained(self, module: Any) -> bool:
        found = self._trained.get(id(module))
        if found is None:
            found = self._trained[id(module)] = self._has_trained(module)
        return found

    def _has_trained(self, module: Any) -> bool:
        own = [parameter for _, parameter in parameters_in(module)]
        if not own:
            return False
        groups = (group for optimizer in self._optimizers() for group in optimizer.param_groups)
        stepped = {id(parameter) for group in groups for parameter in group["params"]}
        if not stepped:
            return any(getattr(parameter, "requires_grad", True) for parameter in own)
        return any(id(parameter) in stepped for parameter in own)


def _is_training(module: Any) -> bool:
    return bool(getattr(module, "training", True))
