"""A sweep: everything that modules and optimizers own, with its address, at one moment.

Nearly all of it is as the sweep before found it. What each tensor is, is compared, and so is each address; rows are
made, and encoded, only of what is not known yet. Nothing is taken on trust: an address may belong to another tensor
by now, and a tensor to another storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from memtrace.hooks.ownership.dtensor_layout import Placements
from memtrace.hooks.ownership.owners import Found, Label, Owned, OwnerRows, lasting_row, plain_tensors
from memtrace.hooks.parts.chunk import Row
from memtrace.hooks.parts.owner_rows import OwnerLayout, Sweep
from memtrace.schema.names import Category

_Facts = tuple[int, int, Any, Any, Any]
"""Bytes of the storage, offset in it, dtype, shape and device of a tensor."""


class _Known:
    """What the last sweep found, without addresses, and which of it has a row."""

    def __init__(self, labels: Sequence[Label], facts: Sequence[_Facts]) -> None:
        self._labels = labels
        self._facts = facts
        self.layout = OwnerLayout(())
        self._kept: list[int] = []
        self._again: list[int] = []
        self._first: list[int] = []
        """Of each tensor in `_again` the one that has the row of both."""
        self._nowhere: list[int] = []
        self._is_gathered = False

    def is_same(self, labels: Sequence[Label], facts: Sequence[_Facts], addresses: Sequence[int]) -> bool:
        """Return whether a sweep found the same tensors, and the same of them have rows at these addresses."""
        if self._is_gathered or self._labels != labels or self._facts != facts:
            return False
        chosen = self.chosen(addresses)
        distinct = set(chosen)
        return (
            0 not in distinct
            and (len(distinct) == len(chosen) or len(set(map(self._key, self._kept, chosen))) == len(chosen))
            and [addresses[at] for at in self._again] == [addresses[at] for at in self._first]
            and not any(addresses[at] for at in self._nowhere)
        )

    def chosen(self, addresses: Sequence[int]) -> Sequence[int]:
        """Return the addresses of the tensors that have a row."""
        return addresses if len(self._kept) == len(addresses) else [addresses[at] for at in self._kept]

    def choose(self, parts: Sequence[Any], addresses: Sequence[int]) -> None:
        """Make rows: of tensors with bytes, each once, and of no parameter that is gathered."""
        rows: list[Row] = []
        firsts: dict[_Key, int] = {}
        held = [at for at, label in enumerate(self._labels) if label[0] is Category.COMMUNICATION]
        # A gathered parameter takes the place of its shard in the module.
        gathered = {addresses[at] for at in held}
        self._is_gathered = bool(held)
        for at, (label, facts, address) in enumerate(zip(self._labels, self._facts, addresses, strict=True)):
            if not facts[0]:
                continue
            if not address:
                self._nowhere.append(at)
                continue
            # Tied parameters are one tensor: it is owned once, by its first name.
            first = firsts.setdefault(self._key(at, address), at)
            if first != at:
                self._again.append(at)
                self._first.append(first)
            elif not (label[0] is Category.PARAMETER and address in gathered):
                self._kept.append(at)
                rows.append(lasting_row(label, parts[at], facts[0]))
        self.layout = OwnerLayout(rows)

    def _key(self, at: int, address: int) -> _Key:
        """Return what is the same of tensors that are one: what is held is so with its whole storage."""
        category = self._labels[at][0]
        return address, 0 if category is Category.COMMUNICATION else self._facts[at][1], category


_Key = tuple[int, int, Category]
"""Address and offset of a tensor, and what it is."""


class OwnerSweep:
    """Sweeps, and remembers what the last sweep found."""

    def __init__(self, torch: Any, rows: OwnerRows) -> None:
        """Prepare; the names of parameters are left with `rows`."""
        self._torch = torch
        self._rows = rows
        self._known = _Known((), ())
        self._plain_kinds = {torch.Tensor, getattr(torch.nn, "Parameter", torch.Tensor)}

    def sweep(
        self,
        roots: Iterable[Any],
        optimizers: Iterable[Any],
        *,
        held: Iterable[Owned],
        names: Iterable[tuple[int, str]],
        now_ns: int,
        step: int,
    ) -> Sweep:
        """Return what all roots and optimizers own, and what is held for communication.

        `names` are of parameters, by identity, that no root may hold now.
        """
        roots = list(roots)
        self._rows.names = dict(names) | _parameter_names(roots)
        found = Found(self._torch, self._rows.names)
        for category, name, tensor in held:
            found.add(category, name, tensor)
        for root in roots:
            found.add_root(root)
        for optimizer in optimizers:
            found.add_optimizer(optimizer)
        addresses = self._take(found)
        known = self._known
        return Sweep(known.layout, known.chosen(addresses), now_ns=now_ns, step=step)

    def _take(self, found: Found) -> Sequence[int]:
        """Return the addresses of what was found, which is known from then on."""
        labels, parts = found.labels, found.tensors
        if not self._plain_kinds.issuperset(map(type, parts)):
            labels, parts = _plain(labels, parts)
        storages = [part.untyped_storage() for part in parts]
        addresses = [storage.data_ptr() for storage in storages]
        facts = [
            (storage.nbytes(), part.storage_offset(), part.dtype, part.shape, part.device)
            for part, storage in zip(parts, storages, strict=True)
        ]
        if not self._known.is_same(labels, facts, addresses):
            self._known = _Known(labels, facts)
            self._known.choose(parts, addresses)
        return addresses


def _plain(labels: Sequence[Label], tensors: Sequence[Any]) -> tuple[list[Label], list[Any]]:
    """Return the tensors with storage behind tensors of any kind, with labels that say how these lie over a mesh."""
    placements = Placements()
    found: list[Label] = []
    parts: list[Any] = []
    for label, tensor in zip(labels, tensors, strict=True):
        label = (*label[:3], *placements.of(tensor))
        for part in plain_tensors(tensor):
            found.append(label)
            parts.append(part)
    return found, parts


def _parameter_names(roots: Iterable[Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    for root in roots:
        for name, parameter in root.named_parameters():
            names.setdefault(id(parameter), name)
    return names
