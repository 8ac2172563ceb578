"""The pools of an allocator at a moment: what is reserved, in use, and free in which pieces.

In: a state of the model, or the final segments and blocks of a snapshot. Out: `PoolState`s, the largest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from memtrace.allocator.results import AllocatorState, BlockState, SegmentState
from memtrace.analysis.results.diagnosis import PoolState
from memtrace.schema.names import DEFAULT_POOL
from memtrace.schema.names import BlockState as State
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace


def pools_of(state: AllocatorState) -> tuple[PoolState, ...]:
    """Return the pools of a state of the model."""
    return _pools(state.segments, requested_is_known=True)


def final_pools(rank: RankTrace, device: str) -> tuple[PoolState, ...]:
    """Return the pools of the final snapshot of a device; none where there is no snapshot."""
    blocks = rank.table("blocks")
    in_use = blocks["state"] != rank.string_id(State.INACTIVE.value)
    is_known = not np.any(blocks["requested_bytes"][in_use] == NULL)
    return _pools(tuple(_final_segments(rank, device)), requested_is_known=is_known)


def _final_segments(rank: RankTrace, device: str) -> Iterator[SegmentState]:
    table, blocks = rank.table("segments"), rank.table("blocks")
    rows = np.flatnonzero(table["device"] == rank.string_id(device))
    small = rank.string_id("small")
    order = np.argsort(blocks["segment"], kind="stable")
    of_segment = blocks["segment"][order]
    columns = [blocks[name][order].tolist() for name in ("address", "size_bytes", "requested_bytes", "state")]
    ends = zip(np.searchsorted(of_segment, rows), np.searchsorted(of_segment, rows, side="right"), strict=True)
    for row, (start, end) in zip(rows.tolist(), ends, strict=True):
        own = zip(*(column[start:end] for column in columns), strict=True)
        yield SegmentState(
            address=int(table["address"][row]),
            size_bytes=int(table["total_bytes"][row]),
            stream=int(table["stream"][row]),
            is_small=bool(table["segment_type"][row] == small),
            pool_id=rank.text(int(table["pool_id"][row])) or DEFAULT_POOL,
            is_expandable=bool(table["is_expandable"][row]),
            blocks=tuple(_block(rank, *values) for values in own),
        )


def _block(rank: RankTrace, address: int, size: int, requested: int, state: int) -> BlockState:
    name = rank.text(state) or ""
    is_free = name == State.INACTIVE.value
    return BlockState(
        address=address,
        size_bytes=size,
        requested_bytes=None if is_free or requested == NULL else requested,
        state=name,
    )


def _pools(segments: Sequence[SegmentState], *, requested_is_known: bool) -> tuple[PoolState, ...]:
    groups: dict[str, list[SegmentState]] = {}
    for segment in segments:
        groups.setdefault(_name(segment), []).append(segment)
    found = [_pool(name, group, requested_is_known) for name, group in groups.items()]
    return tuple(sorted(found, key=lambda pool: (-pool.reserved_bytes, pool.pool)))


def _name(segment: SegmentState) -> str:
    size = "small" if segment.is_small else "large"
    return size if segment.pool_id == DEFAULT_POOL else f"{size} of {segment.pool_id}"


def _pool(name: str, segments: Sequence[SegmentState], requested_is_known: bool) -> PoolState:
    sizes = dict.fromkeys((state.value for state in State), 0)
    requested = split = largest = 0
    for segment in segments:
        for block in segment.blocks:
            sizes[block.state] = sizes.get(block.state, 0) + block.size_bytes
            if block.state == State.INACTIVE.value:
                largest = max(largest, block.size_bytes)
                split += block.size_bytes if len(segment.blocks) > 1 else 0
            elif block.state == State.ACTIVE_ALLOCATED.value:
                requested += block.requested_bytes or 0
    return PoolState(
        pool=name,
        num_segments=len(segments),
        reserved_bytes=sum(segment.size_bytes for segment in segments),
        allocated_bytes=sizes[State.ACTIVE_ALLOCATED.value],
        pending_bytes=sizes[State.ACTIVE_PENDING_FREE.value],
        requested_bytes=requested if requested_is_known else None,
        free_bytes=sizes[State.INACTIVE.value],
        split_bytes=split,
        largest_free_block_bytes=largest,
    )
