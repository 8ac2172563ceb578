"""What a program does that decides which changes it can take: its backwards, steps, gradients and losses.

In: calls of torch that the program makes. Out: facts of the survey.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from memtrace.hooks.changes.chunked_loss import loss_bytes
from memtrace.hooks.changes.places import Places
from memtrace.hooks.changes.stepping.gradient_use import GradientUse
from memtrace.hooks.changes.stepping.sharded_states import (
    ranks_of,
    reason_against_sharded_states,
    replicated_in,
    share_of,
)
from memtrace.hooks.changes.stepping.small_states import is_installed
from memtrace.hooks.changes.survey import Survey
from memtrace.hooks.torch_side.guard import Guard
from memtrace.hooks.torch_side.patches import Patches


class Habits:
    """Watches one program for its survey."""

    def __init__(self, torch: Any, survey: Survey, guard: Guard, *, watches_gradients: bool) -> None:
        """Gradients are not watched where they are stepped in backward already."""
        self._torch = torch
        self._survey = survey
        self._guard = guard
        self._gradients = GradientUse(torch, lambda: guard.active) if watches_gradients else None
        self._places = Places(torch)
        self._root: weakref.ref[Any] | None = None
        self._handles: list[Any] = []
        self._replicated: dict[int, Any] = {}
        self._optimizers: list[weakref.ref[Any]] = []
        self._steps_open = 0

    def install(self, patches: Patches) -> None:
        """Begin to watch."""
        torch, gradients = self._torch, self._gradients
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        def seen(function: Callable[..., object]) -> Callable[..., None]:
            return self._guard.wrap(function, name="the survey")

        patches.around(torch.autograd, "backward", before=seen(self._backward_begins))
        patches.around(torch.nn.functional, "cross_entropy", before=seen(self._loss_begins))
        for owner in (torch.optim.Optimizer, torch.nn.Module):
            patches.around(owner, "zero_grad", before=seen(self._clearing_begins), after=seen(self._clearing_ends))
        self._handles.append(register_optimizer_step_post_hook(seen(self._step_ends)))
        self._handles.append(register_optimizer_step_pre_hook(seen(self._step_begins)))
        if gradients is not None:
            gradients.install(patches)

    def finish(self) -> None:
        """Write down what was seen and stop watching."""
        if self._gradients is not None:
            self._survey.facts["against_step_in_backward"] = self._gradients.answer()
        self._survey.facts["has_bitsandbytes"] = is_installed()
        self._look_for_names()
        self._survey.facts["places"] = self._places.facts()
        while self._handles:
            self._handles.pop().remove()

    def root_found(self, root: Any) -> None:
        """Take note of a module that is called from outside any other; the first names its modules by their paths."""
        if self._root is None:
            self._root = weakref.ref(root)
        self._replicated |= replicated_in(root)
        if any(vars(one).get("track_running_stats") for one in root.modules()):
            self._survey.facts["has_statistics"] = True

    def created(self, optimizer: Any) -> None:
        """Take note of an optimizer."""
        self._places.optimizer(optimizer)
        self._optimizers.append(weakref.ref(optimizer))
        if self._gradients is not None:
            self._gradients.created(optimizer)

    def _backward_begins(self, tensors: Any, *_args: Any, **_kwargs: Any) -> None:
        self._steps_open = 0
        self._survey.backward(tensors)
        if self._gradients is not None:
            self._gradients.backward_begins()

    def _step_begins(self, optimizer: Any, args: Any = (), kwargs: Any = None) -> None:
        """Take note of a step; one inside another, as of the share of this rank, is a part of it."""
        self._steps_open += 1
        if self._steps_open > 1:
            return
        if ranks_of(self._torch) > 1 and "against_sharded_states" not in self._survey.facts:
            self._look_at_ranks()
        if self._gradients is not None:
            self._gradients.step_begins(optimizer, args, kwargs)

    def _step_ends(self, *_args: Any, **_kwargs: Any) -> None:
        self._steps_open = max(self._steps_open - 1, 0)
        if self._steps_open:
            return
        self._survey.step()
        self._look_for_names()
        if self._gradients is not None:
            self._gradients.step_ends()

    def _look_for_names(self) -> None:
        if self._root is not None and (root := self._root()) is not None:
            self._places.look(root)

    def _look_at_ranks(self) -> None:
        made = [optimizer for one in self._optimizers if (optimizer := one()) is not None]
        reasons = (reason_against_sharded_states(self._torch, one, self._replicated) for one in made)
        self._survey.facts["against_sharded_states"] = next((why for why in reasons if why is not None), "")
        self._survey.facts["shares"] = [share for one in made if (share := share_of(one)) is not None]

    def _clearing_begins(self, _owner: Any, set_to_none: bool = True, **_kwargs: Any) -> None:
        if not set_to_none:
            self._survey.facts["fills_gradients"] = True
            self._places.fill()
        if self._gradients is not None:
            self._gradients.clearing_begins()

    def _clearing_ends(self, *_args: Any, **_kwargs: Any) -> None:
        if self._gradients is not None:
            self._gradients.clearing_ends()

    def _loss_begins(self, *args: Any, **kwargs: Any) -> None:
        """Take note of how large the losses are that could be taken some rows at a time."""
        if num_bytes := loss_bytes(self._torch, *args, **kwargs):
            facts = self._survey.facts
            facts["loss_bytes"] = max(facts.get("loss_bytes", 0), num_bytes)
