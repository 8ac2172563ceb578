"""What a program does with its gradients between backward and step: whether backward itself could make the step.

That gives the same only if a step follows exactly one backward, takes what that backward made and nothing else, and
nobody but the optimizer looks at a gradient. Here the plain program is watched for all of it; the first thing that
speaks against it is the reason.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from memtrace.hooks.torch_side.patches import Patches
from memtrace.schema.frames import WRAPPER_FILE

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ELEMENTWISE = frozenset({
    "SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Rprop", "ASGD",
})  # fmt: skip
"""Optimizers of torch that work on each parameter by itself."""


def reason_against_optimizer(optimizer: Any) -> str | None:
    """Return why an optimizer cannot step one parameter at a time; `None` where it can."""
    kind = type(optimizer)
    if kind.__name__ not in ELEMENTWISE or not kind.__module__.startswith("torch.optim."):
        return f"{kind.__name__} is not known to treat each parameter by itself"
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return "hooks of the program hang on its step"
    if any(group.get("differentiable") for group in optimizer.param_groups):
        return "its step is differentiable"
    return None


def is_distributed(torch: Any) -> bool:
    """Return whether gradients may be exchanged with other ranks; what does that for one rank alone writes them too."""
    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())


def options_of(optimizer: Any) -> list[dict[str, Any]]:
    """Return what the groups of an optimizer say beside their parameters; tensors by their identity."""
    return [
        {name: value if isinstance(value, (bool, int, float, tuple, str)) else id(value) for name, value in one.items()}
        for one in ({name: value for name, value in group.items() if name != "params"} for group in _groups(optimizer))
    ]


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = optimizer.param_groups
    return groups


def _where() -> str:
    """Return the line outside memtrace that is at work, to be put behind a sentence."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_OURS, WRAPPER_FILE)):
        frame = frame.f_back
    return "" if frame is None else f" ({os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno})"


class GradientUse:
    """The habits of one program, and what in them speaks against a step in backward."""

    def __init__(self, torch: Any, is_ours: Callable[[], bool]) -> None:
        """`is_ours` says whether memtrace itself is at work, which looks at gradients too."""
        self._torch = torch
        self._is_ours = is_ours
        self._optimizers: list[Any] = []
        self._parameters: set[int] = set()
        self._options: list[list[dict[str, Any]]] = []
        self._inside = 0
        self._backwards = 0
        self._num_steps = 0
        self._stepped: int | None = None
        self.why: str | None = None
        """What speaks against it, the first that was seen."""

    def install(self, patches: Patches) -> None:
        """See from now on who reads a gradient, and who puts one in its place."""
        patches.replace(self._torch.Tensor, "grad", self._watched_gradient())

    def answer(self) -> str:
        """Return what speaks against it; empty where nothing was seen to."""
        if self.why is None and not self._num_steps:
            return "no optimizer of torch made a step"
        return self.why or ""

    def created(self, optimizer: Any) -> None:
        """Take note of an optimizer."""
        self._optimizers.append(optimizer)
        self._parameters.update(id(one) for group in _groups(optimizer) for one in group["params"])

    def backward_begins(self) -> None:
        """Take note of a backward."""
        if self._backwards:
            self._against("gradients of more than one backward go into a step")
        elif any(one.grad is not None for one in self._all_parameters()):
            self._against("gradients are added to those of a backward before")
        self._backwards += 1
        self._options = [options_of(one) for one in self._optimizers]

    def step_begins(self, optimizer: Any, args: Any = (), kwargs: Any = None) -> None:
        """Take note that an optimizer begins its step, with what its `step` was given."""
        # The first argument is the optimizer itself.
        if any(one is not None for one in (*args[1:], *(kwargs or {}).values())):
            self._against("its step is given a closure, which runs backward itself")
        if self._stepped not in (None, id(optimizer)):
            self._against("several optimizers share the program")
        self._stepped = id(optimizer)
        if self._backwards != 1:
            self._against("a step does not follow one backward")
        elif self._options != [options_of(one) for one in self._optimizers]:
            self._against("options of the optimizer are set between backward and step")
        if is_distributed(self._torch):
            self._against("ranks exchange gradients before the step, or would")
        if len({str(one.device) for one in self._all_parameters()}) > 1:
            self._against("its parameters lie on several devices")
        if (why := reason_against_optimizer(optimizer)) is not None:
            self._against(why)
        self._inside += 1

    def step_ends(self) -> None:
        """Take note that a step has ended."""
        self._inside = max(self._inside - 1, 0)
        self._backwards = 0
        self._num_steps += 1

    def clearing_begins(self) -> None:
        """Take note that `zero_grad` is called."""
        if self._backwards and not self._inside:
            self._against("gradients are cleared between backward and step")
        self._inside += 1

    def clearing_ends(self) -> None:
        """Take note that `zero_grad` has ended."""
        self._inside = max(self._inside - 1, 0)

    def _against(self, why: str) -> None:
        self.why = self.why or why

    def _all_parameters(self) -> Iterator[Any]:
        for optimizer in self._optimizers:
            for group in _groups(optimizer):
                yield from group["params"]

    def _read(self, tensor: Any) -> None:
        if self._is_seen(tensor):
            self._against(f"the program looks at gradients itself, as to clip, scale or print them{_where()}")

    def _put(self, tensor: Any, value: Any) -> None:
        if self._is_seen(tensor) and (value is not None or self._backwards):
            self._against(f"the program sets gradients itself{_where()}")

    def _is_seen(self, tensor: Any) -> bool:
        if self._inside or self.why is not None or id(tensor) not in self._parameters or self._is_ours():
            return False
        return bool(self._backwards or self._num_steps)

    def _watched_gradient(self) -> property:
        own = self._torch._C.TensorBase.grad
        read, put = self._read, self._put

        def get(tensor: Any) -> Any:
            read(tensor)
            return own.__get__(tensor)

        def put_in_place(tensor: Any, value: Any) -> None:
            put(tensor, value)
            own.__set__(tensor, value)

        def clear(tensor: Any) -> None:
            put(tensor, None)
            own.__delete__(tensor)

        return property(get, put_in_place, clear, own.__doc__)
