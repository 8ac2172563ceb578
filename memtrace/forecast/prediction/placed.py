"""The requests of a predicted run, put through the model of the allocator: addresses, segments, reserved memory.

In: a rank whose events carry invented addresses, each used once. Out: the same rank as a GPU would have left it, which
the report, what-if and replay read like a recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from memtrace.allocator.blocks import FREE, UNMAPPED, Block, Device
from memtrace.allocator.model import Allocator
from memtrace.allocator.sizes import rounding
from memtrace.forecast.prediction.allocator_settings import settings_of
from memtrace.forecast.prediction.results import FailedRequest as FailedRequest
from memtrace.schema.cuda_context import USUAL_CONTEXT
from memtrace.schema.names import DEFAULT_POOL, Action, BlockState
from memtrace.schema.predicted import FIRST_ALLOWANCE_ADDRESS, FIRST_RULE_ADDRESS
from memtrace.schema.tables import BLOCKS, EVENTS, SEGMENTS, WINDOWS, Table
from memtrace.store.columns import NULL, Array, ColumnTable, IntArray, dtype_of
from memtrace.store.trace import RankTrace

_COLUMNS = ("time_ns", "action", "address", "size_bytes", "stack")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What the model made of the requests."""

    rank: RankTrace
    failed: FailedRequest | None
    """The first request that failed; the events end there."""
    peak_allocated_bytes: int
    max_reserved_bytes: int
    num_retries: int = 0
    """How often cached memory was given back to make room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much of the requests counts that do not come from torch itself."""

    rules: int = 1
    """Factor for requests that follow a rule."""
    allowances: int = 0
    """Factor for requests that a kernel may or may not make."""

    def weighted(self, addresses: Array, sizes: Array) -> Array:
        """Return the sizes of requests at invented addresses."""
        factors = np.select(
            [addresses >= FIRST_ALLOWANCE_ADDRESS, addresses >= FIRST_RULE_ADDRESS], [self.allowances, self.rules], 1
        )
        weighted: Array = sizes * factors
        return weighted


AS_PREDICTED = Weights()


class _Ids:
    """The strings of a rank, and those that are new."""

    def __init__(self, rank: RankTrace) -> None:
        self.texts = list(rank.strings)
        self._ids = {text: at for at, text in enumerate(self.texts)}

    def id(self, text: str) -> int:
        if text not in self._ids:
            self._ids[text] = len(self.texts)
            self.texts.append(text)
        return self._ids[text]


class _LoggedDevice(Device):
    """A device that notes which memory it gave and took back since it was last asked."""

    def __init__(self, capacity_bytes: int | None) -> None:
        super().__init__(capacity_bytes)
        self.log: list[tuple[Action, int, int]] = []

    def malloc(self, size: int) -> int | None:
        address = super().malloc(size)
        if address is not None:
            self.log.append((Action.SEGMENT_ALLOC, address, size))
        return address

    def free(self, address: int, size: int) -> None:
        super().free(address, size)
        self.log.append((Action.SEGMENT_FREE, address, size))

    def map(self, address: int, size: int) -> bool:
        has_room = super().map(address, size)
        # A segment that does not grow is asked for without an address, and noted above.
        if has_room and address:
            self.log.append((Action.SEGMENT_MAP, address, size))
        return has_room

    def unmap(self, address: int, size: int) -> None:
        super().unmap(address, size)
        self.log.append((Action.SEGMENT_UNMAP, address, size))


class _Placing:
    """One pass over the events of a device."""

    def __init__(
        self,
        rank: RankTrace,
        device: str,
        capacity_bytes: int | None,
        weights: Weights,
        *,
        total_bytes: int | None = None,
    ) -> None:
        self.rank = rank
        self.device = device
        self.weights = weights
        self.ids = _Ids(rank)
        self.driver = _LoggedDevice(capacity_bytes)
        settings = settings_of(rank)
        # A share of the memory is one of all of it, the context included.
        if total_bytes is None and capacity_bytes is not None:
            total_bytes = capacity_bytes + USUAL_CONTEXT.predicted_bytes
        self.allocator = Allocator(settings, self.driver, total_bytes=total_bytes)
        self.rounded = rounding(settings)
        self.addresses: dict[int, int] = {}
        """Address in the model of each invented one."""
        self.stacks: dict[int, int] = {}
        """Row of stacks by address in the model, of what is allocated or was taken last."""
        self.rows: list[tuple[int, int, int, int, int]] = []
        self.first_row: list[int] = []
        """Of each event of the rank, the first row that stands for it."""
        self.failed: FailedRequest | None = None
        self.peak_allocated_bytes = 0
        self.max_reserved_bytes = 0

    def run(self) -> None:
        """Put every event through the model, up to the first request that fails."""
        events = self.rank.table("events")
        alloc = self.rank.string_id(Action.ALLOC.value)
        columns = {name: events[name] for name in _COLUMNS}
        columns["size_bytes"] = self.weights.weighted(columns["address"], columns["size_bytes"])
        for time, action, address, size, stack in zip(*(one.tolist() for one in columns.values()), strict=True):
            self.first_row.append(len(self.rows))
            if self.failed is not None or not size:
                continue
            if action == alloc:
                self._take(time, address, size, stack)
            elif address in self.addresses:
                self._give(time, address, size, stack)
        self.first_row.append(len(self.rows))

    def _take(self, time: int, invented: int, size: int, stack: int) -> None:
        block = self.allocator.malloc(size)
        self._note_segments(time, stack)
        if block is None:
            allocator = self.allocator
            self.failed = FailedRequest(
                time_ns=time,
                size_bytes=size,
                allocated_bytes=allocator.allocated_bytes,
                reserved_bytes=allocator.reserved_bytes,
            )
            self._row(time, Action.OOM, NULL, self.rounded(size), stack)
            return
        self.addresses[invented] = block.address
        self.stacks[block.address] = stack
        self._row(time, Action.ALLOC, block.address, size, stack)
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocator.allocated_bytes)
        self.max_reserved_bytes = max(self.max_reserved_bytes, self.allocator.reserved_bytes)

    def _give(self, time: int, invented: int, size: int, stack: int) -> None:
        address = self.addresses[invented]
        self.allocator.free(address)
        self._row(time, Action.FREE_REQUESTED, address, size, stack)
        self._row(time, Action.FREE_COMPLETED, address, size, stack)

    def _note_segments(self, time: int, stack: int) -> None:
        for action, address, size in self.driver.log:
            self._row(time, action, address, size, stack)
            self.stacks.setdefault(address, stack)
        self.driver.log.clear()

    def _row(self, time: int, action: Action, address: int, size: int, stack: int) -> None:
        self.rows.append((time, self.ids.id(action.value), address, size, stack))

    def tables(self) -> dict[str, ColumnTable]:
        """Return the tables that become others."""
        device = self.ids.id(self.device)
        segments, blocks = self._final(device)
        tables = {**self.rank.tables, "events": self._events(device), "segments": segments, "blocks": blocks}
        tables["windows"] = self._windows()
        for name in ("owners", "saved"):
            tables[name] = self._moved(self.rank.table(name), device)
        return tables

    def _events(self, device: int) -> ColumnTable:
        columns = dict(zip(_COLUMNS, _transposed(self.rows, len(_COLUMNS)), strict=True))
        count = len(self.rows)
        free_bytes = np.full(count, NULL, np.int64)
        if self.failed is not None and self.driver.capacity_bytes is not None and count:
            free_bytes[-1] = self.driver.capacity_bytes - self.driver.used_bytes
        others = {
            "device": np.full(count, device, np.int64),
            "stream": np.zeros(count, np.int64),
            "total_bytes": np.full(count, NULL, np.int64),
            "device_free_bytes": free_bytes,
        }
        return ColumnTable(EVENTS, {name: {**columns, **others}[name] for name in EVENTS.column_names()})

    def _windows(self) -> ColumnTable:
        windows, rows = self.rank.table("windows"), np.array(self.first_row, np.int64)
        first = windows["first_event"]
        starts, ends = rows[first], rows[first + windows["num_events"]]
        return ColumnTable(WINDOWS, {**windows.columns, "first_event": starts, "num_events": ends - starts})

    def _moved(self, table: ColumnTable, device: int) -> ColumnTable:
        """Return a table of marks with the addresses of the model. What is owned after a failure is nowhere."""
        moved = [
            self.addresses.get(address, NULL) if on == device else address
            for address, on in zip(table["address"].tolist(), table["device"].tolist(), strict=True)
        ]
        kept = np.array(moved, np.int64) != NULL
        columns: Mapping[str, Array] = {**table.columns, "address": np.array(moved, np.int64)}
        return ColumnTable(table.table, {name: column[kept] for name, column in columns.items()})

    def _final(self, device: int) -> tuple[ColumnTable, ColumnTable]:
        segments: list[tuple[int, ...]] = []
        blocks: list[tuple[int, ...]] = []
        for found in self._segments():
            head = found[0]
            in_use = sum(block.size for block in found if block.state != FREE)
            kind = self.ids.id("small" if head.pool.is_small else "large")
            total, requested = (
                sum(block.size for block in found),
                sum(block.requested for block in found if block.state != FREE),
            )
            pool, stack = self.ids.id(DEFAULT_POOL), self.stacks.get(head.address, NULL)
            is_expandable = head.expandable is not None
            blocks += [(len(segments), *self._block(block)) for block in found]
            segments.append(
                (device, head.address, total, in_use, in_use, requested, 0, kind, pool, is_expandable, stack)
            )
        return _table(SEGMENTS, segments), _table(BLOCKS, blocks)

    def _segments(self) -> list[list[Block]]:
        """Return the blocks of each stretch of memory, by address: a segment, or a mapped part of an expandable one."""
        found = [_chain(head) for head in self.allocator.heads.values()]
        for segment in self.allocator.expandables:
            assert segment.head is not None
            part: list[Block] = []
            for block in _chain(segment.head):
                if block.state != UNMAPPED:
                    part.append(block)
                elif part:
                    found.append(part)
                    part = []
            found += [part] if part else []
        return sorted(found, key=lambda one: one[0].address)

    def _block(self, block: Block) -> tuple[int, ...]:
        is_free = block.state == FREE
        state = self.ids.id((BlockState.INACTIVE if is_free else BlockState.ACTIVE_ALLOCATED).value)
        requested = 0 if is_free else block.requested
        return block.address, block.size, requested, state, self.stacks.get(block.address, NULL)


def place(rank: RankTrace, device: str, *, capacity_bytes: int | None, total_bytes: int | None = None) -> Placed:
    """Return a predicted rank as the allocator of a device with this capacity (`None`: without end) leaves it.

    `total_bytes` is the memory of the device with the context of the process; not given, it is that of a usual GPU.
    """
    placing = _Placing(rank, device, capacity_bytes, AS_PREDICTED, total_bytes=total_bytes)
    placing.run()
    tables = placing.tables()
    return Placed(
        rank=replace(rank, strings=tuple(placing.ids.texts), tables=tables),
        failed=placing.failed,
        peak_allocated_bytes=placing.peak_allocated_bytes,
        max_reserved_bytes=placing.max_reserved_bytes,
        num_retries=placing.allocator.num_alloc_retries,
    )


def peaks(rank: RankTrace, device: str, weights: Weights) -> tuple[int, int]:
    """Return the largest allocated and reserved bytes on a device without end."""
    placing = _Placing(rank, device, None, weights)
    placing.run()
    return placing.peak_allocated_bytes, placing.max_reserved_bytes


def _chain(head: Block) -> list[Block]:
    found: list[Block] = []
    block: Block | None = head
    while block is not None:
        found.append(block)
        block = block.next
    return found


def _transposed(rows: Sequence[tuple[int, ...]], width: int) -> list[IntArray]:
    columns = np.array(rows, np.int64).reshape(-1, width)
    return [np.ascontiguousarray(columns[:, at]) for at in range(width)]


def _table(table: Table, rows: list[tuple[int, ...]]) -> ColumnTable:
    columns = _transposed(rows, len(table.columns))
    return ColumnTable(
        table,
        {column.name: values.astype(dtype_of(column)) for column, values in zip(table.columns, columns, strict=True)},
    )
