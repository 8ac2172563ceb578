"""Rows of one walk for saved tensors, by column: a tuple a row would be an object more for Python's collector.

A walk is a record `saved` of a chunk behind a record `strings` of its own. What holds for all rows is written once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from memtrace.hooks.parts.chunk import Row, StringTable, spared
from memtrace.hooks.parts.packed_columns import packed_line
from memtrace.hooks.parts.spool import encode
from memtrace.schema.tables import SAVED


class SavedRows:
    """The storages that a graph keeps, in the order in which they were met."""

    def __init__(self, *, now_ns: int, step: int, microbatch: int) -> None:
        """Begin, at a moment and in a place of the loop that all rows have."""
        self._moment = now_ns, step, microbatch
        self.devices: list[str] = []
        self.addresses: list[int] = []
        self.sizes: list[int] = []
        self.ops: list[str] = []
        self.dtypes: list[str] = []
        self.shapes: list[str] = []

    def __len__(self) -> int:
        return len(self.addresses)

    def __iter__(self) -> Iterator[Row]:
        """Yield rows of the `saved` table."""
        columns = self.devices, self.addresses, self.sizes, self.ops, self.dtypes, self.shapes
        return ((*self._moment, *row) for row in zip(*columns, strict=True))

    def lines(self) -> bytes:
        """Return the records `strings` and `saved` as lines of a chunk."""
        if not self.addresses:
            return b""
        strings = StringTable()
        texts = (array("i", strings.ids_of(column)) for column in (self.devices, self.ops, self.dtypes, self.shapes))
        devices, ops, dtypes, shapes = map(spared, texts)
        # In the order of the table.
        values = *self._moment, devices, self.addresses, self.sizes, ops, dtypes, shapes
        columns = dict(zip(SAVED.column_names(), values, strict=True))
        return encode(strings.record()) + packed_line(SAVED.name, columns)
