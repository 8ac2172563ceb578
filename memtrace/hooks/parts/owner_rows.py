"""Rows of a sweep for owners, most of which say what the sweep before said: only addresses are written anew.

A sweep is a record `owners` of a chunk behind a record `strings` of its own. So the text of everything but time, step
and addresses is the same in each chunk, and is made once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from memtrace.hooks.parts.chunk import Row, StringTable, encoded_columns, packed, spared
from memtrace.hooks.parts.spool import encode
from memtrace.schema.tables import OWNERS, Table

_OF_A_SWEEP = ("time_ns", "step", "address")
_LASTING = Table(
    name=OWNERS.name,
    row=OWNERS.row,
    columns=tuple(column for column in OWNERS.columns if column.name not in _OF_A_SWEEP),
)
_NUM_BEFORE = OWNERS.column_names().index("address") - len(_OF_A_SWEEP) + 1
"""Columns of the lasting part that come before the address."""


class OwnerLayout:
    """What rows of owners say beside time, step and address."""

    def __init__(self, rows: Sequence[Row]) -> None:
        """Keep rows of the other columns, in the order of the table."""
        self.rows = rows
        self.storages: list[tuple[str, int]] = [(row[0], row[1]) for row in rows]
        """Device and size of the storage of each."""
        self._texts: tuple[bytes, bytes] | None = None

    def texts(self) -> tuple[bytes, bytes]:
        """Return the line with the strings, and the columns as the inside of an object."""
        if self._texts is None:
            strings = StringTable()
            columns = encoded_columns(_LASTING, self.rows, strings)
            lasting = _inside({name: spared(values) for name, values in columns.items()})
            self._texts = encode(strings.record()), lasting
        return self._texts


class Sweep:
    """The owners at one moment: a layout, and the address of each of its rows."""

    def __init__(self, layout: OwnerLayout, addresses: Sequence[int], *, now_ns: int, step: int) -> None:
        self._layout = layout
        self._addresses = addresses
        self._now_ns = now_ns
        self._step = step

    def __len__(self) -> int:
        return len(self._addresses)

    def __iter__(self) -> Iterator[Row]:
        """Yield rows of the `owners` table."""
        for lasting, address in zip(self._layout.rows, self._addresses, strict=True):
            yield (self._now_ns, self._step, *lasting[:_NUM_BEFORE], address, *lasting[_NUM_BEFORE:])

    def storages(self) -> dict[int, tuple[str, int]]:
        """Return device and size of each storage by address."""
        return dict(zip(self._addresses, self._layout.storages, strict=True))

    def lines(self) -> bytes:
        """Return the records `strings` and `owners` as lines of a chunk."""
        if not self._addresses:
            return b""
        strings, lasting = self._layout.texts()
        moment = _inside({"time_ns": self._now_ns, "step": self._step, "address": packed(self._addresses)})
        return b'%s{"k":"%s","columns":{%s,%s}}\n' % (strings, OWNERS.name.encode(), moment, lasting)


def _inside(columns: dict[str, Any]) -> bytes:
    """Return columns encoded, without the braces around them."""
    return encode(columns).strip()[1:-1]
