"""What a row of owners says of a tensor beside name and address, of very many tensors at once.

A column for each fact, and for each column one function of C for all tensors: a line of Python a tensor takes as long
as a step may cost in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter, methodcaller
from typing import Any

_Asked = Callable[[Any], Any]

_dtype_of, _shape_of = attrgetter("dtype"), attrgetter("shape")


@dataclass(frozen=True, slots=True)
class Facts:
    """Columns of facts, each in the order of the tensors."""

    sizes: list[int]
    """Bytes of the storage."""
    offsets: list[int]
    """Where in it the tensor begins, in elements."""
    dtypes: list[Any]
    shapes: list[Any]

    def at(self, places: Sequence[int]) -> Facts:
        """Return the facts of some of the tensors."""
        return Facts(*(list(map(column.__getitem__, places)) for column in self._columns()))

    def part(self, part: slice) -> Facts:
        """Return the facts of a part of the tensors."""
        return Facts(*(column[part] for column in self._columns()))

    def _columns(self) -> tuple[list[Any], ...]:
        return self.sizes, self.offsets, self.dtypes, self.shapes


class Eyes:
    """Looks at tensors that have a storage of their own; raises where one has none."""

    def __init__(self, storage_of: _Asked, offset_of: _Asked, address_of: _Asked, size_of: _Asked) -> None:
        """Take what is asked of a tensor, storage and offset, and of a storage, address and size."""
        self._storage_of, self._offset_of = storage_of, offset_of
        self._address_of, self._size_of = address_of, size_of

    def look(self, tensors: Sequence[Any]) -> tuple[list[int], Facts]:
        """Return the address of the storage of each tensor, and the facts."""
        storages = list(map(self._storage_of, tensors))
        addresses, sizes = list(map(self._address_of, storages)), list(map(self._size_of, storages))
        offsets, dtypes = list(map(self._offset_of, tensors)), list(map(_dtype_of, tensors))
        return addresses, Facts(sizes, offsets, dtypes, list(map(_shape_of, tensors)))


def eyes_for_plain(torch: Any) -> Eyes:
    """Return what looks at tensors of torch's own classes, in a third of the time."""
    tensor, storage = torch.Tensor, torch.UntypedStorage
    return Eyes(tensor.untyped_storage, tensor.storage_offset, storage.data_ptr, storage.nbytes)


def eyes_for_any() -> Eyes:
    """Return what looks at tensors of any class, which may have a word of its own to say."""
    return Eyes(*map(methodcaller, ("untyped_storage", "storage_offset", "data_ptr", "nbytes")))
