"""Which sums of gradients autograd makes in place: those of a gradient that nobody else holds.

Where a tensor is used twice, the engine adds up what comes back from its users. It adds in place if it holds the last
reference to the first of them (`input_buffer.cpp`), but never while a dispatch mode is on, as it is in a prediction:
each such sum would seem to take new memory. So the condition is asked again here, by the same counts of references.
"""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memtrace.hooks.fake.events.assumptions import TORCH_FOLDER
from memtrace.hooks.fake.events.storages import FakeMemory

_aten = torch.ops.aten
_add = _aten.add.Tensor
_ZEROS = {_aten.zeros.default, _aten.new_zeros.default, _aten.zeros_like.default}
_WRITES = {
    _aten.scatter.src,
    _aten.scatter.value,
    _aten.scatter_add.default,
    _aten.index_add.default,
    _aten.index_put.default,
    _aten.masked_scatter.default,
    _aten.put.default,
}
_FLAGS = {_aten.logical_and.default, _aten.logical_or.default}
"""What a formula makes of flags that it has just made: in place, but where a dispatch mode is on."""
_BETWEEN = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    *(
        TORCH_FOLDER + name
        for name in ("_compile.py", "_dynamo" + os.sep, f"utils{os.sep}_python_dispatch.py", "_ops.py")
    ),
)
"""Files whose frames lie between C++ and a dispatch mode."""


class OwnResults:
    """Knows what the formula of a gradient that runs now has made itself."""

    def __init__(self, memory: FakeMemory) -> None:
        self._memory = memory
        self._node = -1
        self._made: set[int] = set()

    def after(self, out: Any) -> None:
        """Take note of what an operator made."""
        if torch._C._current_graph_task_id() == -1 or not isinstance(out, torch.Tensor) or not out.is_meta:
            return
        node = torch._C._current_autograd_node()
        number = -1 if node is None else node._sequence_nr()
        if number != self._node:
            self._node, self._made = number, set()
        self._made.add(self._memory.address_of(out.untyped_storage()))

    def has(self, one: Any) -> bool:
        """Return whether the formula that runs now has made a tensor."""
        node = torch._C._current_autograd_node()
        if node is None or node._sequence_nr() != self._node:
            return False
        return self._memory.address_of(one.untyped_storage()) in self._made


class GradientSums:
    """Recognises the sums that the engine would make in place."""

    def __init__(self, own: OwnResults) -> None:
        self._alone = _counts_of_a_lone_gradient()
        self._own = own

    def is_in_place(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Return whether an operator that runs now is such a sum; its result is then its first argument."""
        if func is not _add or kwargs or self._alone is None or torch.is_grad_enabled():
            return False
        if torch._C._current_graph_task_id() == -1 or not _is_called_by_engine():
            return False
        first, second = args
        is_same = isinstance(second, torch.Tensor) and first.shape == second.shape and first.dtype == second.dtype
        if not is_same or not first.is_meta or not _is_dense(first) or _counts(first) != self._alone:
            return False
        # What a formula for one gradient adds to what it has made is a step of it: the engine has nothing to add there.
        return not (self._own.has(first) and len(torch._C._current_autograd_node().next_functions) == 1)


class FreshZeros:
    """Recognises what a formula of a gradient writes into zeros that it has just made.

    It would do so in place (`gather`, `max`, `index`), but where a dispatch mode is on it takes the form that returns a
    new tensor (`isTensorSubclassLike` in `FunctionsManual.cpp`).
    """

    def __init__(self, memory: FakeMemory, own: OwnResults) -> None:
        self._memory = memory
        self._own = own
        self._address = 0

    def after(self, func: Any, out: Any) -> None:
        """Take note of zeros."""
        if func in _ZEROS and torch._C._current_graph_task_id() != -1:
            self._address = self._memory.address_of(out.untyped_storage())

    def is_in_place(self, func: Any, args: Any) -> bool:
        """Return whether an operator that runs now would write into them; its result is then its first argument."""
        if func in _FLAGS:
            return self._is_own_flag(args)
        if not self._address or func not in _WRITES or torch._C._current_graph_task_id() == -1:
            return False
        if self._memory.address_of(args[0].untyped_storage()) != self._address:
            return False
        return _is_called_by_engine()

    def _is_own_flag(self, args: Any) -> bool:
        first, second = args
        if torch._C._current_graph_task_id() == -1 or first.dtype is not torch.bool or not self._own.has(first):
            return False
        return first.shape == torch.broadcast_shapes(first.shape, second.shape) and _is_called_by_engine()


def _counts(tensor: Any) -> tuple[int, int]:
    return tensor._use_count(), torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


def _is_dense(tensor: Any) -> bool:
    """Return whether each element has a place of its own, with no gaps between."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _is_called_by_engine() -> bool:
    """Return whether the engine itself runs the operator, and not a function in Python that it called."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name == "_engine_run_backward"


class _Look(TorchDispatchMode):  # type: ignore[misc]  # torch leaves it untyped
    """Notes the references to the first argument of a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _add:
            self.seen.append(_counts(args[0]))
        return func(*args, **(kwargs or {}))


def _counts_of_a_lone_gradient() -> tuple[int, int] | None:
    """Return the references to a gradient that only the engine holds, as a mode sees them; None if torch hides them."""
    start = torch.empty(2, device="meta", requires_grad=True)
    used_twice = start * 1
    end = (used_twice.exp() * used_twice.sin()).sum()
    try:
        with _Look() as look:
            torch.autograd.grad(end, start)
    except AttributeError:
        return None
    return look.seen[0] if len(look.seen) == 1 else None
