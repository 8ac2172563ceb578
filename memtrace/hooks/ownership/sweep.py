"""A sweep: everything that modules and optimizers own, with its address, at one moment.

Nearly all of it is as the sweep before found it. What each tensor is, is compared, and so is each address; rows are
made, and encoded, only when something is not as it was. Nothing is taken on trust: an address may belong to another
tensor by now, and a tensor to another storage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import add
from typing import Any

from memtrace.hooks.ownership.dtensor_layout import Placements
from memtrace.hooks.ownership.facts import Eyes, eyes_for_any, eyes_for_plain
from memtrace.hooks.ownership.module_tree import buffers_in, parameters_in
from memtrace.hooks.ownership.owners import Found, Owned, OwnerRows, lasting_row, plain_kinds, plain_tensors
from memtrace.hooks.ownership.quick_look import QuickLook
from memtrace.hooks.ownership.structure import Structure
from memtrace.hooks.ownership.unstepped import Unstepped
from memtrace.hooks.parts.chunk import Row
from memtrace.hooks.parts.owner_rows import OwnerLayout, Standing, Sweep
from memtrace.schema.names import Category

_Whole = tuple[int, "str | None", "str | None"]
"""Which of the tensors found a tensor with storage is a part of, and shape and placement of that one over a mesh."""
_Key = tuple[int, int, Category]
"""Address and offset of a tensor, and what it is."""

_ADDRESS_BITS = 64
_ANY = eyes_for_any()


class _Looked:
    """What was found, looked at: the address of each tensor with storage, and what else a row says of it."""

    def __init__(self, found: Found, kinds: frozenset[type], of_kinds: Eyes) -> None:
        """Look; `kinds` are classes of torch's own, at tensors of which look the eyes `of_kinds`."""
        self.parts: Sequence[Any] = found.tensors
        self._wholes: Sequence[_Whole] | None = None
        self._found = found
        try:
            if kinds.issuperset(map(type, self.parts)):
                self.addresses, self.facts = of_kinds.look(self.parts)
                return
        except NotImplementedError:
            # A sparse tensor is of such a class, too, and has no storage of its own.
            pass
        self._wholes, self.parts = _plain(found.tensors)
        self.addresses, self.facts = _ANY.look(self.parts)

    @property
    def is_plain(self) -> bool:
        """Whether each tensor that was found has a storage of its own."""
        return self._wholes is None

    def forget_tensors(self) -> None:
        """Keep what is compared, and no tensor."""
        self.parts = ()
        self._found.tensors = []

    def is_same(self, other: _Looked) -> bool:
        """Return whether these are the same tensors, wherever they are."""
        return self.facts == other.facts and self._wholes == other._wholes and self._found.labels == other._found.labels

    def named(self) -> list[tuple[Category, str]]:
        """Return category and name of each tensor with storage."""
        named = list(self._found.names())
        return named if self._wholes is None else [named[at] for at, _, _ in self._wholes]

    def placed(self, at: int) -> tuple[str | None, str | None]:
        """Return shape and placement of the distributed tensor that a tensor is this rank's part of."""
        return (None, None) if self._wholes is None else self._wholes[at][1:]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Which of some tensors have a row, by their places, and why others have none."""

    kept: list[int] = field(default_factory=list)
    apart: list[int] = field(default_factory=list)
    """Of each tensor that has a row a number for offset and category, which tells those at one address apart."""
    again: list[int] = field(default_factory=list)
    """Tensors whose row is that of another, which they are."""
    first: list[int] = field(default_factory=list)
    """Of each tensor in `again` that other one."""
    nowhere: list[int] = field(default_factory=list)
    """Tensors without an address."""

    def are_same(self, addresses: Sequence[int]) -> bool:
        """Return whether the same tensors would be chosen if these were their addresses."""
        at = addresses.__getitem__
        chosen = list(map(at, self.kept))
        return (
            len(set(map(add, chosen, self.apart))) == len(chosen)
            and 0 not in chosen
            and list(map(at, self.again)) == list(map(at, self.first))
            and not any(map(at, self.nowhere))
        )

    def among(self, places: Collection[int]) -> _Chosen:
        """Return the choice among some of the tensors, which are none of the others."""
        kept, again = ([at in places for at in ones] for ones in (self.kept, self.again))
        return _Chosen(
            kept=list(compress(self.kept, kept)),
            apart=list(compress(self.apart, kept)),
            again=list(compress(self.again, again)),
            first=list(compress(self.first, again)),
            nowhere=[at for at in self.nowhere if at in places],
        )


class _Known:
    """What the last sweep found, and which of it has a row."""

    def __init__(self, looked: _Looked) -> None:
        self._looked = looked
        self._named = looked.named()
        self._has_gathered = False
        self.choice = _Chosen()
        """Which of the tensors have a row."""
        self.layout = OwnerLayout(self._choose())
        numbers: dict[tuple[int, Category], int] = {}
        for at in self.choice.kept:
            self.choice.apart.append(numbers.setdefault(self._key(at, 0)[1:], len(numbers)) << _ADDRESS_BITS)
        self.facts = looked.facts
        """Of each tensor with storage, what a row says of it beside name and address."""
        looked.forget_tensors()

    def is_same(self, looked: _Looked) -> bool:
        """Return whether the same tensors have been found, and the same of them have rows."""
        return not self._has_gathered and self._looked.is_same(looked) and self.choice.are_same(looked.addresses)

    def chosen(self, addresses: Sequence[int]) -> Sequence[int]:
        """Return the addresses of the tensors that have a row."""
        kept = self.choice.kept
        return addresses if len(kept) == len(addresses) else list(map(addresses.__getitem__, kept))

    def _choose(self) -> list[Row]:
        """Return rows of tensors with bytes, each once, and of no parameter that is gathered."""
        looked, choice, rows = self._looked, self.choice, list[Row]()
        firsts: dict[_Key, int] = {}
        held = [at for at, (category, _) in enumerate(self._named) if category is Category.COMMUNICATION]
        # A gathered parameter takes the place of its shard in the module.
        gathered = {looked.addresses[at] for at in held}
        self._has_gathered = bool(held)
        for at, (category, name) in enumerate(self._named):
            address, size = looked.addresses[at], looked.facts.sizes[at]
            if not size:
                continue
            if not address:
                choice.nowhere.append(at)
                continue
            # Tied parameters are one tensor: it is owned once, by its first name.
            first = firsts.setdefault(self._key(at, address), at)
            if first != at:
                choice.again.append(at)
                choice.first.append(first)
            elif not (category is Category.PARAMETER and address in gathered):
                choice.kept.append(at)
                rows.append((*lasting_row(category, name, looked.parts[at], size), *looked.placed(at)))
        return rows

    def _key(self, at: int, address: int) -> _Key:
        """Return what is the same of tensors that are one: what is held is so with its whole storage."""
        category = self._named[at][0]
        return address, 0 if category is Category.COMMUNICATION else self._looked.facts.offsets[at], category


class OwnerSweep:
    """Sweeps, and remembers what the last sweep found."""

    def __init__(self, torch: Any, rows: OwnerRows) -> None:
        """Prepare; the names of parameters are left with `rows`."""
        self._torch = torch
        self._rows = rows
        self._plain, self._eyes = plain_kinds(torch), eyes_for_plain(torch)
        self._known: _Known | None = None
        self._quick: QuickLook | None = None
        """Of a very large model, what the last look in full found."""
        self._of_gradients: _Chosen | None = None
        """Which of the gradients have a row: at a quick look nothing else can have moved."""
        self._standing: Standing | None = None
        """The rows of all else."""
        self._addresses: list[int] | None = None
        """What the last quick look returned."""
        self.unstepped = Unstepped(torch)

    def sweep(
        self,
        roots: Iterable[Any],
        optimizers: Iterable[Any],
        *,
        held: Iterable[Owned],
        names: Iterable[tuple[int, str]],
        now_ns: int,
        step: int,
        ends_step: bool = False,
    ) -> Sweep:
        """Return what all roots and optimizers own, and what is held for communication.

        `names` are of parameters, by identity, that no root may hold now. Which gradients nothing steps is told where
        the sweep `ends_step` only: before that, an optimizer may yet come to them.
        """
        roots, optimizers, held, named = list(roots), list(optimizers), list(held), dict(names)
        addresses = standing = None
        if self._quick is not None and not held and not named:
            addresses = self._look_quickly(self._quick, Structure(roots, optimizers), ends_step=ends_step)
            standing = self._standing
        if addresses is None or self._known is None:
            addresses, standing = self._look_in_full(roots, optimizers, held, named, ends_step=ends_step), None
        assert self._known is not None
        return Sweep(self._known.layout, self._known.chosen(addresses), now_ns=now_ns, step=step, standing=standing)

    def _look_quickly(self, quick: QuickLook, structure: Structure, *, ends_step: bool) -> list[int] | None:
        """Return the addresses of what was found last, where nothing else is there now."""
        addresses = quick.addresses(structure)
        if addresses is None or self._of_gradients is None:
            return None
        if addresses is not self._addresses and not self._of_gradients.are_same(addresses):
            return None
        self._addresses = addresses
        if ends_step:
            names = self._rows.names
            models = [{id(one): one for one in model} for model in quick.unstepped(structure)]
            named = [[(name, model[key]) for key, name in names.items() if key in model] for model in models]
            self.unstepped.look(named, set(map(id, structure.stepped)) if named else set())
        return addresses

    def _look_in_full(
        self, roots: list[Any], optimizers: list[Any], held: list[Owned], names: dict[int, str], *, ends_step: bool
    ) -> list[int]:
        found = self._find(roots, optimizers, held, names, ends_step=ends_step)
        looked = _Looked(found, self._plain, self._eyes)
        parts = looked.parts
        if self._known is None or not self._known.is_same(looked):
            self._known = _Known(looked)
        self._quick = None
        if looked.is_plain and not held and not names and QuickLook.is_worth_it(parts):
            structure = Structure(roots, optimizers)
            quick = QuickLook(self._torch, structure, parts, looked.addresses, self._known.facts)
            if quick.is_possible:
                self._quick = quick
                gradients = set(quick.of_gradients)
                self._of_gradients = self._known.choice.among(gradients)
                moving = [row for row, at in enumerate(self._known.choice.kept) if at in gradients]
                self._standing = Standing(self._known.layout, self._known.chosen(looked.addresses), moving)
        return looked.addresses

    def _find(
        self,
        roots: Iterable[Any],
        optimizers: Iterable[Any],
        held: Iterable[Owned],
        names: dict[int, str],
        *,
        ends_step: bool,
    ) -> Found:
        # All names first: a parameter that two roots share has the one that it has in the first.
        of_roots: dict[int, str] = {}
        modules = [(root, list(parameters_in(root))) for root in roots]
        for _, parameters in modules:
            for name, parameter in parameters:
                of_roots.setdefault(id(parameter), name)
        self._rows.names = names | of_roots
        found = Found(self._torch, self._rows.names)
        for category, name, tensor in held:
            found.add(category, name, tensor)
        for root, parameters in modules:
            found.add_parameters((of_roots[id(parameter)], parameter) for _, parameter in parameters)
            for name, buffer in buffers_in(root):
                found.add(Category.BUFFER, name, buffer)
        stepped: set[int] = set()
        for optimizer in optimizers:
            found.add_optimizer(optimizer)
            stepped.update(id(parameter) for group in optimizer.param_groups for parameter in group["params"])
        if ends_step:
            self.unstepped.look([parameters for _, parameters in modules], stepped)
        return found


def _plain(tensors: Sequence[Any]) -> tuple[list[_Whole], list[Any]]:
    """Return the tensors with storage behind tensors of any kind, and what each is a part of."""
    placements = Placements()
    wholes: list[_Whole] = []
    parts: list[Any] = []
    for at, tensor in enumerate(tensors):
        placed = placements.of(tensor)
        for part in plain_tensors(tensor):
            wholes.append((at, *placed))
            parts.append(part)
    return wholes, parts
