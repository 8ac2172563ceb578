"""Rows of a sweep for owners, most of which say what the sweep before said: only addresses are written anew.

A sweep is a record `owners` of a chunk behind a record `strings` of its own. So the text of everything but time, step
and addresses is the same in each chunk, and is made once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import compress
from typing import Any, TypeVar

from memtrace.hooks.parts.chunk import Row, StringTable, encoded_columns, spared
from memtrace.hooks.parts.packed_columns import packed
from memtrace.hooks.parts.spool import encode
from memtrace.schema.tables import OWNERS, Table

_Storage = tuple[str, int]
"""Device and size."""
_Block = tuple[str, int, str]
"""Device, size and category."""
_Value = TypeVar("_Value")

_OF_A_SWEEP = ("time_ns", "step", "address")
_LASTING = Table(
    name=OWNERS.name,
    row=OWNERS.row,
    columns=tuple(column for column in OWNERS.columns if column.name not in _OF_A_SWEEP),
)
_CATEGORY = [column.name for column in _LASTING.columns].index("category")
_NUM_BEFORE = OWNERS.column_names().index("address") - len(_OF_A_SWEEP) + 1
"""Columns of the lasting part that come before the address."""


class OwnerLayout:
    """What rows of owners say beside time, step and address."""

    def __init__(self, rows: Sequence[Row]) -> None:
        """Keep rows of the other columns, in the order of the table."""
        self.rows = rows
        # Each once: thousands of tensors are alike.
        storages: dict[_Storage, _Storage] = {}
        self.storages = [storages.setdefault(one, one) for row in rows for one in ((row[0], row[1]),)]
        """Device and size of the storage of each."""
        blocks: dict[_Block, _Block] = {}
        self.blocks = [blocks.setdefault(one, one) for row in rows for one in ((row[0], row[1], row[_CATEGORY]),)]
        """The same and its category."""
        self.has_one_device = len({device for device, _ in storages}) < 2
        self._texts: tuple[bytes, bytes] | None = None

    def texts(self) -> tuple[bytes, bytes]:
        """Return the line with the strings, and the columns as the inside of an object."""
        if self._texts is None:
            strings = StringTable()
            columns = encoded_columns(_LASTING, self.rows, strings)
            lasting = _inside({name: spared(values) for name, values in columns.items()})
            self._texts = encode(strings.record()), lasting
        return self._texts


class Standing:
    """The rows of a layout that stand where they stood, sweep after sweep, beside those that may move."""

    def __init__(self, layout: OwnerLayout, addresses: Sequence[int], moving: Sequence[int]) -> None:
        """Take the addresses of all rows, and which of them may move."""
        self.moving = moving
        stays = [True] * len(addresses)
        for row in moving:
            stays[row] = False
        self._layout, self._stays, self._addresses = layout, stays, list(compress(addresses, stays))

    @cached_property
    def storages(self) -> dict[int, _Storage]:
        """Device and size of each of their storages by address."""
        return dict(zip(self._addresses, compress(self._layout.storages, self._stays), strict=True))

    @cached_property
    def counts(self) -> Counter[_Block]:
        """How many storages of each device, size and category there are."""
        return _counted(self._addresses, list(compress(self._layout.blocks, self._stays)))


class Sweep:
    """The owners at one moment: a layout, and the address of each of its rows."""

    def __init__(
        self,
        layout: OwnerLayout,
        addresses: Sequence[int],
        *,
        now_ns: int,
        step: int,
        standing: Standing | None = None,
    ) -> None:
        """`standing` is what of the layout stands where it did, if somebody has looked."""
        self._standing = standing
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
        if self._standing is None:
            return dict(zip(self._addresses, self._layout.storages, strict=True))
        return self._standing.storages | dict(zip(*self._moving(self._layout.storages), strict=True))

    def bytes_by_category(self, device: str | None) -> dict[str, int]:
        """Return the bytes of the storages on a device by category, each storage once, as the first row has it."""
        found: dict[str, int] = {}
        for (where, size, category), count in self._counts(device).items():
            if where == device:
                found[category] = found.get(category, 0) + size * count
        return found

    def _counts(self, device: str | None) -> Counter[_Block]:
        if not self._layout.has_one_device:
            # What has an address on one device may have it on another.
            is_there = [block[0] == device for block in self._layout.blocks]
            here = list(compress(self._addresses, is_there)), list(compress(self._layout.blocks, is_there))
            return _counted(*here)
        if self._standing is not None:
            addresses, blocks = self._moving(self._layout.blocks)
            # One that stands and moves at once is of the row that comes first, which only all rows together tell.
            if self._standing.storages.keys().isdisjoint(addresses):
                return self._standing.counts + _counted(addresses, blocks)
        return _counted(self._addresses, self._layout.blocks)

    def _moving(self, values: Sequence[_Value]) -> tuple[list[int], list[_Value]]:
        """Return the addresses of the rows that may have moved, and these of the values of all rows."""
        assert self._standing is not None
        moving = self._standing.moving
        return list(map(self._addresses.__getitem__, moving)), list(map(values.__getitem__, moving))

    def lines(self) -> bytes:
        """Return the records `strings` and `owners` as lines of a chunk."""
        if not self._addresses:
            return b""
        strings, lasting = self._layout.texts()
        moment = b'"time_ns":%d,"step":%d,"address":%b' % (self._now_ns, self._step, packed(self._addresses))
        return b'%b{"k":"%b","columns":{%b,%b}}\n' % (strings, OWNERS.name.encode(), moment, lasting)


def _counted(addresses: Sequence[int], blocks: Sequence[_Block]) -> Counter[_Block]:
    """Count storages, each as the first of its rows has it."""
    return Counter(dict(zip(reversed(addresses), reversed(blocks), strict=True)).values())


def _inside(columns: dict[str, Any]) -> bytes:
    """Return columns encoded, without the braces around them."""
    return encode(columns).strip()[1:-1]
