"""Training by hand: loops that write into their tensors themselves, with no optimizer and perhaps with no module.

    loss = cross_entropy(tanh(x @ w1) @ w2, y)
    loss.backward()                             its graph ends at w1 and w2
    for w in (w1, w2):
        w.data -= rate * w.grad                 torch tells of none of this
        w.grad = None

In: the tensors at which the graph of each backward pass ends. Out: which of them the program trains, and whether it has
taken a step since the last pass. Trained is what was written to between two passes. On an accelerator a write through
`.data` leaves no trace: there a gradient that is dropped or set to zero tells of a step, until a write was seen, and
not of what is trained, which may as well be measured alone. Where the program has let go of all of them, it has used
their gradients up: their function returned, or it made others in their place.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any

from memtrace.hooks.ownership.glances import Glance, glance_at, sum_of, version_of
from memtrace.hooks.ownership.owners import Owned, plain_check, plain_kinds
from memtrace.hooks.parts.chunk import Row
from memtrace.schema.names import Category

_MAX_LEAVES = 4096
"""Of a graph that ends at more tensors, the first."""
_SUMMED_BYTES = 16 << 20
"""So many bytes, in all, are looked at: a pass over them takes a few ms."""

Names = Callable[[list[Any]], dict[int, str]]
"""What the program calls some tensors, by identity."""


class _Leaf:
    """A tensor at which a graph ended, and that no module has."""

    __slots__ = ("_glance", "_gradient", "_sum", "is_trained", "name", "reference", "rows")

    def __init__(self, tensor: Any, name: str) -> None:
        self.reference: weakref.ref[Any] = weakref.ref(tensor)
        self.name = name
        """What the program calls it."""
        self.is_trained = False
        self.rows: list[Row] = []
        """What owns memory here when the last pass had ended, if it is trained."""
        self._glance: Glance | None = None
        self._sum: int | None = None
        """Of all its bytes; `None` where they are not looked at."""
        self._gradient: tuple[int, int | None] | None = None
        """Its gradient by identity, and how often that had been written to."""

    def look(self, tensor: Any, plain: frozenset[type], *, with_sum: bool) -> None:
        """Remember what there is to be seen at the end of a pass."""
        self._glance = glance_at(tensor, plain, with_values=False)
        self._sum = sum_of(tensor, plain) if with_sum else None
        self._gradient = _gradient_of(tensor)

    def is_written(self, tensor: Any, plain: frozenset[type]) -> bool:
        """Return whether the program wrote to it since."""
        then = self._glance
        if then is None:
            return False
        return glance_at(tensor, plain, with_values=False).is_written(then) or (
            self._sum is not None and sum_of(tensor, plain) != self._sum
        )

    def is_used(self, tensor: Any) -> bool:
        """Return whether the gradient of then was dropped, or written to, where a write to the tensor may not show."""
        return tensor.device.type != "cpu" and self._gradient is not None and _gradient_of(tensor) != self._gradient

    @property
    def has_gradient(self) -> bool:
        """Whether it had a gradient."""
        return self._gradient is not None

    def owned(self, tensor: Any) -> list[Owned]:
        """Return it and its gradient."""
        gradients = [] if tensor.grad is None else [(Category.GRADIENT, self.name, tensor.grad)]
        return [(Category.PARAMETER, self.name, tensor), *gradients]


class ByHand:
    """Follows the tensors at which graphs end, from one backward pass to the next. It keeps none alive."""

    def __init__(self, torch: Any) -> None:
        self._is_plain = plain_check(torch)
        self._kinds = plain_kinds(torch)
        self._leaves: dict[int, _Leaf] = {}
        """By identity."""
        self._shows_writes = False
        """Whether a write of the program was ever seen."""

    @property
    def is_possible(self) -> bool:
        """Whether there is anything that the program may train so."""
        return bool(self._leaves)

    def has_stepped(self) -> bool:
        """Return whether the program wrote to any of the tensors, or used a gradient, since the last pass."""
        alive = list(self._alive())
        if not alive:
            return any(leaf.has_gradient for leaf in self._leaves.values())
        return any(leaf.is_written(one, self._kinds) for leaf, one in alive) or (
            not self._shows_writes and any(leaf.is_used(one) for leaf, one in alive)
        )

    def pass_begins(self, ends: Iterable[Any], owned: Collection[int], names: Names) -> list[Row]:
        """Note where the graph of a pass ends that begins now; return rows of those that turn out to be trained.

        The rows are of owners at the end of the pass before. `owned` are tensors that modules have, by identity.
        """
        rows = self._find_trained()
        found = [one for one in islice(ends, _MAX_LEAVES) if id(one) not in owned and self._is_plain(one)]
        new = [one for one in found if id(one) not in self._leaves or self._leaves[id(one)].reference() is not one]
        called = names(new) if new else {}
        for number, tensor in enumerate(new):
            self._leaves[id(tensor)] = _Leaf(tensor, called.get(id(tensor), f"tensor {number}"))
        return rows

    def pass_ended(self) -> None:
        """Look at all of them: what changes from now on, the program does."""
        self._leaves = {key: leaf for key, leaf in self._leaves.items() if leaf.reference() is not None}
        left_bytes = _SUMMED_BYTES
        for leaf, tensor in self._alive():
            left_bytes -= tensor.nbytes
            leaf.look(tensor, self._kinds, with_sum=left_bytes >= 0)

    def note_rows(self, rows_of: Callable[[list[Owned]], list[Row]]) -> None:
        """Keep rows of owners for what is not known to be trained yet."""
        for leaf, tensor in self._alive():
            leaf.rows = [] if leaf.is_trained else rows_of(leaf.owned(tensor))

    def owned(self) -> list[Owned]:
        """Return what is trained, and its gradients."""
        return [one for leaf, tensor in self._alive() if leaf.is_trained for one in leaf.owned(tensor)]

    def _find_trained(self) -> list[Row]:
        rows: list[Row] = []
        for leaf, tensor in self._alive():
            if not leaf.is_trained and leaf.is_written(tensor, self._kinds):
                leaf.is_trained = self._shows_writes = True
                rows += leaf.rows
            leaf.rows = []
        return rows

    def _alive(self) -> Iterator[tuple[_Leaf, Any]]:
        for leaf in list(self._leaves.values()):
            tensor = leaf.reference()
            # Of what an operation in place made a part of a graph, `.grad` warns on stderr.
            if tensor is not None and tensor.is_leaf:
                yield leaf, tensor


def _gradient_of(tensor: Any) -> tuple[int, int | None] | None:
    gradient = tensor.grad
    return None if gradient is None else (id(gradient), version_of(gradient))
