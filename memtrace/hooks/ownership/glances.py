"""A glance at a tensor: enough of it to tell at the next one whether the program wrote to it.

In place torch counts writes (`tensor.add_(…)` under no_grad); through `tensor.data` it does not, and the values tell.
They are looked at on the CPU alone, where that waits for nothing.
"""

from __future__ import annotations

import ctypes
import zlib
from itertools import islice
from typing import Any, NamedTuple

_NUM_VALUES = 8
"""So many values of a tensor are compared, spread over it."""


class Glance(NamedTuple):
    """What was seen of a tensor at a moment."""

    version: int | None
    """How often it had been written to; `None` where it does not count that, as in inference mode."""
    values: tuple[bytes, ...] | None
    """Some of its values, as they lie in memory; `None` where they are not looked at."""

    def is_written(self, before: Glance) -> bool | None:
        """Return whether the program wrote to it since; `None` where that cannot be told, as not all writes count."""
        if self.version != before.version:
            return True
        return None if self.values is None or before.values is None else self.values != before.values


def glance_at(tensor: Any, plain: frozenset[type], *, with_values: bool) -> Glance:
    """Return what there is to be seen; values only of kinds that are `plain`."""
    return Glance(version_of(tensor), _values_of(tensor, plain) if with_values else None)


def version_of(tensor: Any) -> int | None:
    """Return how often a tensor was written to in place; `None` where it does not count."""
    try:
        version: int | None = getattr(tensor, "_version", None)
    except RuntimeError:
        return None
    return version


def sum_of(tensor: Any, plain: frozenset[type]) -> int | None:
    """Return a checksum of all bytes of a tensor; `None` where they are not looked at."""
    where = _memory_of(tensor, plain)
    if where is None:
        return None
    first, number, size = where
    return zlib.adler32((ctypes.c_char * (number * size)).from_address(first))


def _values_of(tensor: Any, plain: frozenset[type]) -> tuple[bytes, ...] | None:
    where = _memory_of(tensor, plain)
    if where is None:
        return None
    first, number, size = where
    places = range(0, number, max(number // _NUM_VALUES, 1))
    return tuple(ctypes.string_at(first + place * size, size) for place in islice(places, _NUM_VALUES))


def _memory_of(tensor: Any, plain: frozenset[type]) -> tuple[int, int, int] | None:
    """Return where the values of a tensor lie, how many they are, and the bytes of each.

    They are read out of the memory itself: operators are seen by modes and profilers of the program.
    """
    if type(tensor) not in plain or tensor.device.type != "cpu":
        return None
    try:
        number, size = int(tensor.numel()), int(tensor.element_size())
        storage = tensor.untyped_storage()
        first, last = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        first += int(tensor.storage_offset()) * size
        if not (tensor.is_contiguous() and number and storage.data_ptr() and first + number * size <= last):
            return None
    except (AttributeError, RuntimeError, NotImplementedError):
        # Of a layout or type whose values cannot be had so.
        return None
    return first, number, size
