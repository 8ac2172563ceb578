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
        self.labels = labels
        self.facts = facts
        self.kept: list[int] = []
        self.layout = OwnerLayout(())
        self.depends_on_addresses = False
        """Whether a tensor has no row for its address alone, so that other addresses may mean other rows."""

    def is_same(self, labels: Sequence[Label], facts: Sequence[_Facts]) -> bool:
        """Return whether a sweep found the same tensors."""
        return self.labels == labels and self.facts == facts

    def rows_stay(self, addresses: Sequence[int]) -> bool:
        """Return whether the same tensors have rows at these addresses."""
        chosen = self.chosen(addresses)
        distinct = set(chosen)
        if self.depends_on_addresses or 0 in distinct:
            return False
        return len(distinct) == len(chosen) or len(set(self._keys(chosen))) == len(chosen)

    def chosen(self, addresses: Sequence[int]) -> Sequence[int]:
        """Return the addresses of the tensors that have a row."""
        return addresses if len(self.kept) == len(addresses) else [addresses[at] for at in self.kept]

    def _keys(self, chosen: Sequence[int]) -> Iterable[tuple[int, int, Category]]:
        for at, address in zip(self.kept, chosen, strict=True):
            yield address, self.facts[at][1], self.labels[at][0]

    def choose(self, parts: Sequence[Any], addresses: Sequence[int]) -> None:
        """Make rows: of tensors with bytes, each once, and of no parameter that is gathered."""
        rows: list[Row] = []
        seen: set[tuple[int, int, Category]] = set()
        held = [at for at, label in enumerate(self.labels) if label[0] is Category.COMMUNICATION]
        # A gathered parameter takes the place of its shard in the module.
        gathered = {addresses[at] for at in held}
        self.depends_on_addresses = bool(held)
        for at, (label, facts, address) in enumerate(zip(self.labels, self.facts, addresses, strict=True)):
            category, (size, offset, *_) = label[0], facts
            if not size:
                continue
            # Tied parameters are one tensor: it is owned once, by its first name.
            key = address, 0 if category is Category.COMMUNICATION else offset, category
            is_gathered = category is Category.PARAMETER and address in gathered
            if not address or key in seen or is_gathered:
                self.depends_on_addresses = True
                continue
            seen.add(key)
            self.kept.append(at)
            rows.append(lasting_row(label, parts[at], size))
        self.layout = OwnerLayout(rows)


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
        if not (self._known.is_same(labels, facts) and self._known.rows_stay(addresses)):
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
