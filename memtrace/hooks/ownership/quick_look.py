"""A quick look at the owners of a very large model: where its tensors are, and what of the rest cannot go unseen.

To look at a tensor in full takes a microsecond, at each step, and a model with its optimizer may have fifty thousand.
What modules and optimizers hold is compared by identity, and the address of each tensor with that of the sweep before,
in a tenth of the time. Gradients, which are made anew in each step, are looked at in full; of parameters, buffers and
states a sixteenth at each sweep: one whose bytes stayed where they are, and became another view or part of another
storage, is seen within sixteen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import compress
from operator import attrgetter
from typing import Any

from memtrace.hooks.ownership.facts import Facts, eyes_for_plain
from memtrace.hooks.ownership.owners import plain_kinds
from memtrace.hooks.ownership.structure import Structure

_NUM_IN_FULL = 4096
"""Of so many tensors each is looked at in full, whatever it takes."""
_NUM_SHARES = 16
_NUM_AT_ONCE = 32 * _NUM_SHARES
"""So many tensors are fetched into the processor, which takes most of the time, and then asked all there is to ask."""

_gradient_of, _is_leaf, _hung_on = map(attrgetter, ("grad", "is_leaf", "__dict__"))


class QuickLook:
    """What the last look in full found of a very large model, and where each of its tensors stands in that."""

    def __init__(
        self, torch: Any, structure: Structure, tensors: Sequence[Any], addresses: Sequence[int], facts: Facts
    ) -> None:
        """Remember what was found: each tensor, the address of its storage, and the rest."""
        self._plain = plain_kinds(torch)
        self._eyes = eyes_for_plain(torch)
        self._pointer = torch.Tensor.data_ptr
        self._turn = 0
        self._addresses = list(addresses)
        self._names, self._identities = structure.names, structure.identities()
        stepped = {id(None), *map(id, structure.stepped)}
        self._unstepped = [at for at, one in enumerate(structure.models) if not stepped.issuperset(map(id, one))]
        self.of_gradients: list[int] = []
        """Where gradients stand among the tensors; nothing else may have moved where a look returns addresses."""
        self.is_possible = self._place(structure, tensors, facts)
        """Whether all that was found is seen by a quick look, too."""

    @staticmethod
    def is_worth_it(tensors: Sequence[Any]) -> bool:
        """Return whether there are so many tensors that looking at each in full takes long."""
        return len(tensors) > _NUM_IN_FULL

    def _place(self, structure: Structure, tensors: Sequence[Any], facts: Facts) -> bool:
        """Find each tensor of modules and optimizers among those that were found; return whether these are all."""
        self._is_first = _are_first(structure.held)
        self._is_other = _are_there(structure.others)
        parameters = self._parameters_in(structure)
        lasting = self._lasting_in(structure, parameters)
        if not (structure.is_plain and self._are_plain(lasting) and self._are_usual(parameters)):
            return False
        places = {id(tensor): at for at, tensor in enumerate(tensors)}
        gradients = list(map(_gradient_of, parameters))
        of_lasting = [places.get(id(one)) for one in lasting]
        of_gradients = [places.get(id(one)) for one in gradients if one is not None]
        seen = {*of_lasting, *of_gradients}
        if None in seen or len(seen) < len(tensors):
            return False
        found = [at for at in of_lasting if at is not None]
        self.of_gradients = [at for at in of_gradients if at is not None]
        self._pointers = list(map(self._pointer, lasting))
        self._addresses_of_lasting, self._facts_of_lasting = [self._addresses[at] for at in found], facts.at(found)
        self._has_gradient, self._facts_of_gradients = _are_there(gradients), facts.at(self.of_gradients)
        return True

    def addresses(self, structure: Structure) -> list[int] | None:
        """Return the address of the storage of each tensor that was found, in that order; `None` if others are now.

        It is the list that was returned before where nothing has moved.
        """
        if not structure.is_plain or structure.names != self._names or structure.identities() != self._identities:
            return None
        parameters = self._parameters_in(structure)
        try:
            stays = self._stay(self._lasting_in(structure, parameters))
            gradients = self._look_at_gradients(parameters) if stays else None
        except (RuntimeError, NotImplementedError):
            # One that is of a plain class and has no storage.
            return None
        if gradients is None:
            return None
        if gradients != list(map(self._addresses.__getitem__, self.of_gradients)):
            self._addresses = list(self._addresses)
            deque(map(self._addresses.__setitem__, self.of_gradients, gradients), maxlen=0)
        return self._addresses

    def unstepped(self, structure: Structure) -> list[list[Any]]:
        """Return the parameters of each model some of which no optimizer has, where all is as it was found."""
        return [[one for one in structure.models[at] if one is not None] for at in self._unstepped]

    def _parameters_in(self, structure: Structure) -> list[Any]:
        """Return parameters, each once."""
        return list(compress(structure.held, self._is_first))

    def _lasting_in(self, structure: Structure, parameters: Sequence[Any]) -> list[Any]:
        """Return parameters, buffers and states."""
        return [*parameters, *compress(structure.others, self._is_other)]

    def _stay(self, lasting: Sequence[Any]) -> bool:
        """Return whether all that lasts is where it was, and the next share of it what it was."""
        first, self._turn = self._turn, (self._turn + 1) % _NUM_SHARES
        for part in _parts(lasting):
            tensors, share = lasting[part], slice(part.start + first, part.stop, _NUM_SHARES)
            if not self._are_plain(tensors) or list(map(self._pointer, tensors)) != self._pointers[part]:
                return False
            addresses, facts = self._eyes.look(lasting[share])
            if addresses != self._addresses_of_lasting[share] or facts != self._facts_of_lasting.part(share):
                return False
        return True

    def _look_at_gradients(self, parameters: Sequence[Any]) -> list[int] | None:
        """Return the addresses of all gradients; `None` if one is another in more than its address."""
        found: list[int] = []
        for part in _parts(parameters):
            if not self._are_usual(parameters[part]):
                return None
            gradients = list(map(_gradient_of, parameters[part]))
            if _are_there(gradients) != self._has_gradient[part]:
                return None
            made = [one for one in gradients if one is not None]
            if not self._are_plain(made):
                return None
            addresses, facts = self._eyes.look(made)
            if facts != self._facts_of_gradients.part(slice(len(found), len(found) + len(made))):
                return None
            found += addresses
        return found

    def _are_plain(self, tensors: Sequence[Any]) -> bool:
        return self._plain.issuperset(map(type, tensors))

    @staticmethod
    def _are_usual(parameters: Sequence[Any]) -> bool:
        """Return whether nothing hangs on parameters but a gradient. Of what is no leaf, `.grad` warns on stderr."""
        return all(map(_is_leaf, parameters)) and not any(map(_hung_on, parameters))


def _parts(tensors: Sequence[Any]) -> Iterator[slice]:
    for start in range(0, len(tensors), _NUM_AT_ONCE):
        yield slice(start, start + _NUM_AT_ONCE)


def _are_there(tensors: Sequence[Any]) -> list[bool]:
    return [one is not None for one in tensors]


def _are_first(tensors: Sequence[Any]) -> list[bool]:
    """Return which of them are there, and stand nowhere before."""
    met = {id(None)}
    found = []
    for one in tensors:
        found.append(id(one) not in met)
        met.add(id(one))
    return found
