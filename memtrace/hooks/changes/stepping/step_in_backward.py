"""Each parameter is stepped as soon as backward has its gradient, which is freed at once: never are all there together.

The optimizer of the program makes the step, of one parameter and with the options of its group, so that its states, and
what it saves of them, are as ever. Its own `step()` then finds no gradient, and does nothing but what hangs on it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from memtrace.hooks.changes.stepping.gradient_use import is_distributed, options_of, reason_against_optimizer
from memtrace.hooks.torch_side.patches import Patches

_Known = tuple[weakref.ref[Any], int, weakref.ref[Any]]
"""Optimizer, number of the group, and parameter."""


class StepInBackwardError(RuntimeError):
    """The program does with its gradients what a step in backward makes wrong: it ends rather than train otherwise."""


class StepInBackward:
    """The optimizers of a program, each stepped by the backward that makes its gradients."""

    def __init__(self, torch: Any, refuse: Callable[[str], None]) -> None:
        """`refuse` is told why the program cannot go on so, just before an error says it."""
        self._torch = torch
        self._refuse = refuse
        self._group_of: dict[int, _Known] = {}
        self._done: dict[int, int] = {}
        self._done_before: set[int] = set()
        self._options: dict[int, Any] = {}
        self._fills = False
        self._handles: list[Any] = []

    def install(self, patches: Patches) -> None:
        """Hang on to every parameter that is given to an optimizer from now on."""
        torch = self._torch
        added = self._added

        def after(optimizer: Any, *_args: Any, **_kwargs: Any) -> None:
            if (why := reason_against_optimizer(optimizer)) is None:
                added(optimizer)
            else:
                self._refuse(why)

        patches.around(torch.optim.Optimizer, "add_param_group", after=after)
        for owner in (torch.optim.Optimizer, torch.nn.Module):
            patches.around(owner, "zero_grad", before=self._cleared)
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        self._handles += [
            register_optimizer_step_pre_hook(self._step_begins),
            register_optimizer_step_post_hook(self._step_ended),
        ]

    def remove(self) -> None:
        """Let steps be made by `step()` again."""
        while self._handles:
            self._handles.pop().remove()
        self._group_of.clear()

    def _added(self, optimizer: Any) -> None:
        index = len(optimizer.param_groups) - 1
        for parameter in optimizer.param_groups[index]["params"]:
            if parameter.requires_grad and parameter.is_leaf:
                known = self._known(parameter)
                # Of two optimizers that share it, the second is told at its step.
                if known is None or known[0]() is None:
                    self._group_of[id(parameter)] = weakref.ref(optimizer), index, weakref.ref(parameter)
                if known is None:
                    self._handles.append(parameter.register_post_accumulate_grad_hook(self._step_one))

    def _known(self, parameter: Any) -> _Known | None:
        known = self._group_of.get(id(parameter))
        return known if known is not None and known[2]() is parameter else None

    def _step_one(self, parameter: Any) -> None:
        known = self._known(parameter)
        optimizer = None if known is None else known[0]()
        if known is None or optimizer is None:
            return
        if not self._done:
            self._check(optimizer)
        if id(parameter) in self._done:
            raise self._error("gradients of more than one backward go into a step")
        groups = optimizer.param_groups
        # The function within the hooks of `step`: what hangs on a step happens once, when the program calls it.
        step = type(optimizer).step
        optimizer.param_groups = [{**groups[known[1]], "params": [parameter]}]
        try:
            getattr(step, "__wrapped__", step)(optimizer)
        finally:
            optimizer.param_groups = groups
        parameter.grad = None
        self._done[id(parameter)] = id(optimizer)

    def _check(self, optimizer: Any) -> None:
        """Of the first parameter of a backward: remember by which options it steps."""
        if (why := reason_against_optimizer(optimizer)) is not None:
            raise self._error(why)
        if is_distributed(self._torch):
            raise self._error("ranks exchange gradients before the step, or would")
        self._options = {id(optimizer): options_of(optimizer)}

    def _step_begins(self, optimizer: Any, *_args: Any) -> None:
        if any(one != id(optimizer) for one in self._done.values()):
            raise self._error("several optimizers share the program")
        if self._done and self._options.get(id(optimizer)) != options_of(optimizer):
            raise self._error("options of the optimizer are set between backward and step")

    def _step_ended(self, *_args: Any) -> None:
        done = set(self._done)
        if self._fills and self._done_before and done != self._done_before:
            raise self._error("gradients that a backward does not make are zeros, by which the plain step goes on")
        self._done_before = done
        self._done.clear()

    def _cleared(self, _owner: Any, set_to_none: bool = True, **_kwargs: Any) -> None:
        self._fills = self._fills or not set_to_none

    def _error(self, why: str) -> StepInBackwardError:
        self._refuse(why)
        return StepInBackwardError(f"gradients cannot be freed in backward, as the plan of memtrace fix asks: {why}")
