"""What module calls of a training forward cost, hold in their arguments and results, and do that a second run must not.

One file a process, written at its end: JSON, read by `launch/survey.py`. Addresses are those of the trace beside it.
"""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import time_ns
from typing import Any

from memtrace.hooks.changes.arguments import state_of, tensors_of, versions
from memtrace.hooks.changes.kept_results import has_policies
from memtrace.hooks.changes.operator_cost import OperatorCost
from memtrace.hooks.changes.operator_notes import OperatorNotes
from memtrace.hooks.changes.regions import has_saved_tensor_hooks
from memtrace.hooks.changes.safety import difference, own_state, reason_against
from memtrace.hooks.ownership.owners import plain_tensors
from memtrace.hooks.parts.own_file import OwnFile
from memtrace.schema.options import SurveyOptions

_MAX_CALLS = 400_000
_MAX_LOSSES = 1000


class Survey:
    """Rows of calls, and what is known of the program beside them."""

    def __init__(self, torch: Any, options: SurveyOptions, file: OwnFile, memory: Any) -> None:
        """`memory` is that of a GPU that is not there, and tells of operators; without it time is measured.

        Where there is no accelerator, that of the processor: what else runs on the machine is not in it.
        """
        self._torch = torch
        self._file = file
        self._seconds: Callable[[], float] | None = None
        self._memory = memory
        self._notes = OperatorNotes(torch, self._made_by_operator) if has_policies() else None
        self._cost: OperatorCost | None = None
        self._watches = options.operators and memory is None and self._notes is not None
        self._watching: AbstractContextManager[Any] | None = None
        if memory is not None:
            cost = self._cost = OperatorCost(torch, options)
            memory.on_operator = self._operator
            self._seconds = lambda: cost.seconds
        elif not torch.cuda.is_available():
            self._seconds = time.process_time
        elif self._watches:
            self._seconds = self._finished
        self._open: list[str] = []
        self._calls: list[tuple[Any, ...]] = []
        self._checked: set[str] = set()
        self._refused: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._given: list[tuple[str, weakref.ref[Any], int]] = []
        self._losses: list[list[str]] = []
        self._steps: list[tuple[int, float | None]] = []
        self.facts: dict[str, Any] = {}
        """What else the search asks for."""
        self.last_again: str | None = None
        """The module that was last run again in backward."""

    @property
    def is_real(self) -> bool:
        """Whether the program really computes: a GPU that is not there has no values."""
        return self._memory is None

    def before(self, name: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Open the row of a call; return what `after` needs, or `None` for a call that is not a training forward."""
        torch = self._torch
        if not torch.is_grad_enabled() or torch._C._current_graph_task_id() != -1:
            return None
        if name not in self._checked:
            self._checked.add(name)
            if why := reason_against(torch, module):
                self.refuse(name, why)
        if has_saved_tensor_hooks(torch):
            self.refuse(name, "it runs under checkpointing, or other hooks for saved tensors, already")
        self._open.append(name)
        tensors = list(tensors_of((args, kwargs), torch.Tensor))
        self._given += [
            (name, weakref.ref(one), version) for one, version in zip(tensors, versions(tensors), strict=True)
        ]
        checks = own_state(module), state_of((args, kwargs), torch.Tensor), (args, kwargs)
        if self._watches and self._watching is None and self._notes is not None:
            self._watching = self._notes.watching(self._spent)
            self._watching.__enter__()
        return name, type(module).__name__, time_ns(), self._spent(), self._addresses(tensors), checks

    def after(self, opened: Any, module: Any, out: Any, *, has_failed: bool) -> None:
        """Close the row of a call."""
        name, kind, start_ns, spent, inputs, (own, given, arguments) = opened
        if self._watching is not None and self._open[:1] == [name]:
            self._watching.__exit__(None, None, None)
            self._watching = None
        end_ns, cost = time_ns(), self._spent() - spent
        changed = difference(own, own_state(module))
        if changed is not None:
            self._refuse_all(f"its attribute {changed} is another after a forward")
        elif given != state_of(arguments, self._torch.Tensor):
            # What is around it makes the argument anew when it runs again, unless it was given it as well.
            self.refuse(name, "it changes what it is given")
        while self._open and self._open.pop() != name:
            pass
        if not has_failed and len(self._calls) < _MAX_CALLS:
            outputs = self._addresses(list(tensors_of(out, self._torch.Tensor)))
            self._calls.append((name, kind, start_ns, end_ns, cost, inputs, outputs))

    def refuse(self, name: str, why: str) -> None:
        """Take note that a module is to be left as it is; the first reason counts."""
        self._refused.setdefault(name, why)

    def failed(self, name: str, why: str) -> None:
        """Take note that a module could not be run again."""
        self._failed.setdefault(name, why)

    def again(self, name: str) -> None:
        """Take note that a module is run again in backward."""
        self.last_again = name

    def backward(self, tensors: Any) -> None:
        """Take note of what a backward begins from, exactly, and of what was written to since a module was given it."""
        given, self._given = self._given, []
        for name, reference, version in given:
            tensor = reference()
            if tensor is not None and versions([tensor]) != [version]:
                self.refuse(name, "what it was given is written to before backward")
        roots = [one for one in tensors_of(tensors, self._torch.Tensor) if one.numel() == 1]
        if len(self._losses) < _MAX_LOSSES:
            self._losses.append([float(one.detach()).hex() for one in roots])

    def step(self) -> None:
        """Take note that an optimizer has made a step."""
        self._steps.append((time_ns(), None if self._seconds is None else self._seconds()))

    def write(self) -> None:
        """Write the file."""
        document = {
            "calls": self._calls,
            "refused": self._refused,
            "failed": self._failed,
            "losses": self._losses,
            "steps": self._steps,
            "last_again": self.last_again,
            "operators": [] if self._notes is None else self._notes.rows(),
            "facts": self.facts,
        }
        self._file.append(json.dumps(document).encode(), size_before=0)
        self._file.close()

    def _refuse_all(self, why: str) -> None:
        """Refuse the innermost call and all around it, which would run it again."""
        innermost = self._open[-1] if self._open else ""
        for name in self._open:
            self.refuse(name, why if name == innermost else f"of {innermost} inside it: {why}")

    def _operator(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Count an operator of a GPU that is not there; that of a training forward is noted too."""
        assert self._cost is not None
        before = self._cost.seconds
        self._cost(func, args, kwargs, out)
        if self._open and self._notes is not None:
            self._notes.add(func, args, kwargs, out, self._cost.seconds - before)

    def _finished(self) -> float:
        """Return the time when all that was asked of the GPU is done."""
        self._torch.cuda.synchronize()
        return time.perf_counter()

    def _spent(self) -> float:
        return time_ns() / 1e9 if self._seconds is None else self._seconds()

    def _made_by_operator(self, tensors: list[Any]) -> list[int]:
        """Return the storages of tensors as an operator sees them: of no device, where the GPU is not there."""
        if self._memory is None:
            return self._addresses(tensors)
        return [self._memory.address_of(one.untyped_storage()) for one in tensors if one.is_meta]

    def _addresses(self, tensors: list[Any]) -> list[int]:
        found = {}
        for tensor in tensors:
            for part in plain_tensors(tensor):
                address = part.untyped_storage().data_ptr()
                if address:
                    found[address] = True
        return list(found)
