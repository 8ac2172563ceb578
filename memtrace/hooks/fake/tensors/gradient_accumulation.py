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
}
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_BETWEEN = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    *(_TORCH + name for name in ("_compile.py", "_dynamo" + os.sep, f"utils{os.sep}_python_dispatch.py", "_ops.py")),
)
"""Files whose frames lie between C++ and a dispatch mode."""


class GradientSums:
    """Recognises the sums that the engine would make in place."""

    def __init__(self) -> None:
        self._alone = _counts_of_a_lone_gradient()

    def is_in_place(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Return whether an operator that runs now is such a sum; its result is then its first argument."""
        if func is not _add or kwargs or self._alone is None or torch.is_grad_enabled():
            return False
        if torch._C._current_graph_task_id() == -1 or not _is_called_by_engine():
            return False
        first, second = args
        is_same = isinstance(second, torch.Tensor) and first.shape == second.shape and first.dtype == second.dtype
        return is_same and first.is_meta and _is_dense(first) and _counts(first) == self._alone


class FreshZeros:
    """Recognises what a formula of a gradient writes into zeros that it has just made.

    It would do so in place (`gather`, `max`, `index`), but where a dispatch mode is on it takes the form that returns a
    new tensor (`isTensorSubclassLike` in `FunctionsManual.cpp`).
    """

    def __init__(self, memory: FakeMemory) -> None:
        self._memory = memory
        self._address = 0

    def after(self, func: Any, out: Any) -> None:
        """Take note of zeros."""
        if func in _ZEROS and torch._C._current_graph_task_id() != -1:
            self._address = self._memory.address_of(out.untyped_storage())

    def is_in_place(self, func: Any, args: Any) -> bool:
        """Return whether an operator that runs now would write into them; its result is then its first argument."""
        if not self._address or func not in _WRITES or torch._C._current_graph_task_id() == -1:
            return False
        if self._memory.address_of(args[0].untyped_storage()) != self._address:
            return False
        return _is_called_by_engine()


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
