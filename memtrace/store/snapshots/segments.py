"""The segments of a torch snapshot: the state of the allocator at one moment, as the tables `segments` and `blocks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.schema.names import BlockState
from memtrace.schema.tables import BLOCKS, SEGMENTS
from memtrace.store.columns import NULL, ColumnTable, IntArray, check_num_devices, check_sizes, int_column
from memtrace.store.stacks import StackTable
from memtrace.store.strings import StringTable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveBlocks:
    """Blocks that are in use (or freed but awaiting a stream), by address as the snapshot has them."""

    address: IntArray
    size_bytes: IntArray
    """Requested bytes; the whole block where the snapshot does not say."""
    stack: IntArray
    """Row of stacks, or null."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentTables:
    """The tables, and what a history is checked against."""

    tables: dict[str, ColumnTable]
    device_names: tuple[str, ...]
    inactive: int
    """String id of the state of a free block."""

    def live_blocks(self, device: int) -> LiveBlocks:
        """Return the blocks of a device (a string id) that are not inactive."""
        blocks, segments = self.tables[BLOCKS.name], self.tables[SEGMENTS.name]
        rows = np.flatnonzero((segments["device"][blocks["segment"]] == device) & (blocks["state"] != self.inactive))
        requested, whole = blocks["requested_bytes"][rows], blocks["size_bytes"][rows]
        size_bytes = np.where(requested == NULL, whole, requested)
        return LiveBlocks(address=blocks["address"][rows], size_bytes=size_bytes, stack=blocks["stack"][rows])

    def total_bytes(self, device: int) -> int:
        """Return the bytes that a device (a string id) has reserved."""
        segments = self.tables[SEGMENTS.name]
        return int(segments["total_bytes"][segments["device"] == device].sum())


def read_segments(
    segments: Any, strings: StringTable, stacks: StackTable, *, device_name: Callable[[int], int]
) -> SegmentTables:
    """Return the tables of a snapshot's segments; `device_name` gives the string id of a device index.

    Raises:
        TraceReadError: a segment or block is not what it should be.
    """
    _check_dicts(segments, "segments")
    blocks = [block for segment in segments for block in _blocks_of(segment)]
    counts = [len(segment["blocks"]) for segment in segments]
    devices = _required(segments, "device", "segments")
    if len(devices) and (devices.min() < 0 or devices.max() > 10_000):
        raise TraceReadError("segments device: not an index of a device", slug="file-damaged")
    indices = sorted(set(devices.tolist()))
    check_num_devices(len(indices), where="segments device")
    ids = {index: device_name(index) for index in indices}
    segment_table = ColumnTable(
        SEGMENTS,
        {
            "device": np.array([ids[index] for index in devices.tolist()], np.int64),
            "address": _required(segments, "address", "segments"),
            "total_bytes": check_sizes(_required(segments, "total_size", "segments"), where="segments total_size"),
            "allocated_bytes": check_sizes(
                _required(segments, "allocated_size", "segments"), where="segments allocated_size"
            ),
            "active_bytes": check_sizes(_required(segments, "active_size", "segments"), where="segments active_size"),
            "requested_bytes": _requested(segments, "segments"),
            "stream": int_column([segment.get("stream", 0) for segment in segments], where="segments stream"),
            "segment_type": _texts(strings, [segment.get("segment_type", "large") for segment in segments]),
            "pool_id": _texts(strings, [_pool_id(segment.get("segment_pool_id", (0, 0))) for segment in segments]),
            "is_expandable": np.array([segment.get("is_expandable", False) is True for segment in segments], np.bool_),
            "stack": stacks.rows_of([segment.get("frames") for segment in segments]),
        },
    )
    block_table = ColumnTable(
        BLOCKS,
        {
            "segment": np.repeat(np.arange(len(segments), dtype=np.int64), counts),
            "address": int_column(_addresses(segments), where="blocks address"),
            "size_bytes": check_sizes(_required(blocks, "size", "blocks"), where="blocks size"),
            "requested_bytes": _requested(blocks, "blocks"),
            "state": _texts(strings, [block.get("state", "") for block in blocks]),
            "stack": stacks.rows_of([_frames_of(block) for block in blocks]),
        },
    )
    return SegmentTables(
        tables={SEGMENTS.name: segment_table, BLOCKS.name: block_table},
        device_names=tuple(strings.texts()[number] for number in ids.values()),
        inactive=strings.id(BlockState.INACTIVE.value),
    )


def _check_dicts(values: Any, name: str) -> None:
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, dict) for value in values):
        raise TraceReadError(f"{name} is not a list of dicts", slug="file-damaged")


def _blocks_of(segment: dict[str, Any]) -> Sequence[dict[str, Any]]:
    blocks = segment.get("blocks")
    _check_dicts(blocks, "blocks of a segment")
    checked: Sequence[dict[str, Any]] = blocks if blocks is not None else ()
    return checked


def _addresses(segments: Sequence[dict[str, Any]]) -> list[int]:
    """Return the address of every block. Before torch 2.1 blocks had none: they tile their segment in order."""
    addresses: list[int] = []
    for segment in segments:
        blocks = segment["blocks"]
        if all("address" in block for block in blocks):
            addresses.extend(block["address"] for block in blocks)
        else:
            starts = accumulate((block["size"] for block in blocks[:-1]), initial=segment["address"])
            addresses.extend(starts)
    return addresses


def _frames_of(block: dict[str, Any]) -> Any:
    """Return the frames of a block; before torch 2.1 they stood in the newest entry of its history."""
    if "frames" in block:
        return block["frames"]
    history = block.get("history")
    if isinstance(history, list) and history and isinstance(history[0], dict):
        return history[0].get("frames")
    return None


def _required(rows: Sequence[dict[str, Any]], key: str, name: str) -> IntArray:
    try:
        return int_column([row[key] for row in rows], where=f"{name} {key}")
    except KeyError:
        raise TraceReadError(f"{name}: an entry without {key!r}", slug="file-damaged") from None


def _requested(rows: Sequence[dict[str, Any]], name: str) -> IntArray:
    column = int_column([row.get("requested_size") for row in rows], where=f"{name} requested_size", nullable=True)
    check_sizes(column[column != NULL], where=f"{name} requested_size")
    return column


def _texts(strings: StringTable, values: Sequence[Any]) -> IntArray:
    return int_column(list(map(strings.id, values)), where="segments")


def _pool_id(value: Any) -> str:
    """Return a pool as text: (0, 1) is "0,1"."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(part, int) for part in value):
        return f"{value[0]},{value[1]}"
    raise TraceReadError("segment_pool_id is not a pair of numbers", slug="file-damaged")
