"""A quick look at the owners of a very large model: where its tensors are, and what of the rest cannot go unseen.

To look at a tensor in full takes a microsecond, at each step, and a model with its optimizer may have fifty thousand.
What modules and optimizers hold is compared by identity, and the address of each tensor with that of the sweep before,
in a tenth of the time. Gradients, which are made anew in each step, are looked at in full; of parameters, buffers and
states a sixteenth at each sweep: one whose bytes stayed where they are, and became another view or part of another
storage, is seen within sixteen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import attrgetter, is_not
from typing import Any

from memtrace.hooks.ownership.module_tree import modules_in
from memtrace.hooks.ownership.owners import plain_kinds

_NUM_IN_FULL = 4096
"""Of so many tensors each is looked at in full, whatever it takes."""
_NUM_SHARES = 16

Facts = tuple[int, int, Any, Any]
"""Bytes of the storage, offset in it, dtype and shape of a tensor."""


class Structure:
    """What modules and optimizers hold at a moment, by name and identity."""

    def __init__(self, roots: Iterable[Any], optimizers: Iterable[Any]) -> None:
        """Gather, without looking at any tensor."""
        self.names: list[Any] = []
        """Names and numbers of all that is held, as they come; equal lists are equal trees."""
        self.models: list[list[Any]] = []
        """Parameters of each root."""
        self.others: list[Any] = []
        """Buffers and states of optimizers."""
        self.stepped: list[Any] = []
        """Parameters of optimizers."""
        self.is_plain = True
        """Whether all states are what optimizers of torch have: a flat dictionary for each parameter."""
        for root in roots:
            self._gather_root(root)
        self._keys: list[Any] = []
        for optimizer in optimizers:
            self._gather_optimizer(optimizer)
        self.parameters = list(chain.from_iterable(self.models))

    def _gather_root(self, root: Any) -> None:
        parameters: list[Any] = []
        for path, module in modules_in(root):
            own, buffers = module._parameters, module._buffers
            self.names += (path, len(own), *own, *buffers)
            parameters += own.values()
            self.others += buffers.values()
        self.models.append([one for one in parameters if one is not None])

    def _gather_optimizer(self, optimizer: Any) -> None:
        states = optimizer.state
        for group in optimizer.param_groups:
            self.stepped += group["params"]
            self.names.append(len(self.stepped))
        if not (isinstance(states, dict) and {dict}.issuperset(map(type, states.values()))):
            self.is_plain = False
            return
        self._keys += states
        self.names += map(len, states.values())
        self.names += chain.from_iterable(states.values())
        self.others += chain.from_iterable(map(dict.values, states.values()))

    def identities(self) -> list[int]:
        """Return what is held by identity, parameters and other tensors first."""
        return list(map(id, chain(self.parameters, self.others, self.stepped, self._keys)))

    def lasting(self) -> list[Any]:
        """Return parameters, buffers and states."""
        return [one for one in chain(self.parameters, self.others) if one is not None]


class QuickLook:
    """What the last look in full found of a very large model, and where each of its tensors stands in that."""

    def __init__(
        self, torch: Any, structure: Structure, tensors: Sequence[Any], addresses: Sequence[int], facts: Sequence[Facts]
    ) -> None:
        """Remember what was found: each tensor, the address of its storage, and the rest."""
        self._plain = plain_kinds(torch)
        self._pointer = torch.Tensor.data_ptr
        places = {id(tensor): at for at, tensor in enumerate(tensors)}
        lasting, gradients = structure.lasting(), _gradients(structure.parameters)
        self._names, self._identities = structure.names, structure.identities()
        self._places = [places.pop(id(one), None) for one in lasting]
        self._places_of_gradients = [places.pop(id(one), None) for one in gradients if one is not None]
        self._has_gradient = _are_there(gradients)
        self._addresses, self._facts = list(addresses), facts
        self._turn = 0
        self.is_possible = not (
            places
            or None in self._places
            or None in self._places_of_gradients
            or len(self._places) + len(self._places_of_gradients) != len(tensors)
            or not self._is_usual(structure, lasting)
        )
        """Whether all that was found is seen by a quick look, too."""
        self._pointers = self._pointers_of(lasting) if self.is_possible else []

    @staticmethod
    def is_worth_it(tensors: Sequence[Any]) -> bool:
        """Return whether there are so many tensors that looking at each in full takes long."""
        return len(tensors) > _NUM_IN_FULL

    def addresses(self, structure: Structure) -> list[int] | None:
        """Return the address of the storage of each tensor that was found, in that order; `None` if others are now."""
        if structure.names != self._names or structure.identities() != self._identities:
            return None
        lasting = structure.lasting()
        try:
            if not self._is_usual(structure, lasting) or self._pointers_of(lasting) != self._pointers:
                return None
            found = self._look_at_gradients(structure) if self._is_share_same(lasting) else None
        except (RuntimeError, NotImplementedError):
            # One that is of a plain class and has no storage.
            return None
        return found

    def _pointers_of(self, lasting: Sequence[Any]) -> list[int]:
        return list(map(self._pointer, lasting))

    def _is_usual(self, structure: Structure, lasting: Sequence[Any]) -> bool:
        """Return whether all is of the plain kind, and nothing hangs on a parameter but its gradient."""
        parameters = structure.parameters
        return (
            structure.is_plain
            and self._plain.issuperset(map(type, lasting))
            and all(map(attrgetter("is_leaf"), parameters))
            and not any(map(attrgetter("__dict__"), parameters))
        )

    def _is_share_same(self, lasting: Sequence[Any]) -> bool:
        """Look at the next share of what lasts in full."""
        first, self._turn = self._turn, (self._turn + 1) % _NUM_SHARES
        places = self._places[first::_NUM_SHARES]
        looked = (look(tensor) for tensor in lasting[first::_NUM_SHARES])
        return all(
            address == self._addresses[at] and facts == self._facts[at]
            for at, (address, facts) in zip(places, looked, strict=True)
            if at is not None
        )

    def _look_at_gradients(self, structure: Structure) -> list[int] | None:
        gradients = _gradients(structure.parameters)
        if _are_there(gradients) != self._has_gradient:
            return None
        made = [one for one in gradients if one is not None]
        if not self._plain.issuperset(map(type, made)):
            return None
        found = list(self._addresses)
        for at, gradient in zip(self._places_of_gradients, made, strict=True):
            address, facts = look(gradient)
            if at is None or facts != self._facts[at]:
                return None
            found[at] = address
        return found


def look(tensor: Any) -> tuple[int, Facts]:
    """Return the address of a tensor's storage, and what else a row says of it."""
    storage = tensor.untyped_storage()
    return storage.data_ptr(), (storage.nbytes(), tensor.storage_offset(), tensor.dtype, tensor.shape)


def _gradients(parameters: Iterable[Any]) -> list[Any]:
    # `.grad` of a tensor that is not a leaf warns on stderr: whoever asks has looked.
    return [one.grad if one.is_leaf else None for one in parameters]


def _are_there(gradients: Sequence[Any]) -> list[bool]:
    return [is_not(one, None) for one in gradients]
