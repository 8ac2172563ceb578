"""Every allocation of a device, ready to be drawn: in the order of a stack, with its place, its reason and its origin.

In: `DeviceHistory`. Out: `AllocationMap`. Columns only, no loop over events; strings and stacks are kept once each and
only those that an allocation names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from memtrace.analysis.allocation_map.address_axis import build_axis, segment_spans
from memtrace.analysis.attribution.attribute import CATEGORIES, DECISIONS
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import modules_of
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.results.report import AllocationMap, SegmentFact
from memtrace.schema.names import DEFAULT_POOL, BlockState, Category, Decision
from memtrace.store.columns import NULL, ColumnTable, IntArray
from memtrace.store.trace import RankTrace


def build_allocation_map(history: DeviceHistory, peaks: Mapping[str, int]) -> AllocationMap | None:
    """Return the map of a device, `None` where no allocation is known; `peaks` are moments by name."""
    if not history.has_history:
        history = with_final_blocks(history)
    lifetimes, attribution, moments = history.lifetimes, history.attribution, history.moments
    if not len(lifetimes):
        return None
    order = np.lexsort((lifetimes.address, lifetimes.start))
    address, size_bytes, start = lifetimes.address[order], lifetimes.size_bytes[order], lifetimes.start[order]
    block_bytes = _block_bytes(history, order) if history.has_history else _final_block_bytes(history)[order]
    segments = segment_spans(history)
    axis = build_axis(address, size_bytes if block_bytes is None else block_bytes, segments, is_cpu=history.is_cpu)
    stack, stack_frame, stack_parent, frames = _stacks(history.rank, lifetimes.stack[order])
    module, modules = _texts(history.rank, modules_of(history, order))
    owner, owners = _named(history.rank, "owners", "name", attribution.owner_row[order])
    saved, saved_for = _named(history.rank, "saved", "op", attribution.saved_row[order])
    starts = moments.epoch_starts()
    return AllocationMap(
        num_moments=len(moments),
        event=moments.event,
        time_ns=moments.time_ns if moments.has_times else None,
        start=start,
        in_use_end=lifetimes.in_use_end[order],
        end=lifetimes.end[order],
        is_initial=lifetimes.is_initial[order],
        size_bytes=size_bytes,
        block_bytes=block_bytes,
        address=address,
        place_bytes=axis.places(address),
        category=attribution.category[order],
        decision=attribution.decision[order],
        stack=stack,
        module=module,
        owner=owner,
        saved=saved,
        step=_steps(history, start, lifetimes.is_initial[order]),
        base_bytes=history.levels.base[starts] if history.has_history else np.zeros(len(starts), np.int64),
        epoch_start=starts,
        stack_frame=stack_frame,
        stack_parent=stack_parent,
        frames=frames,
        categories=tuple(category.value for category in CATEGORIES),
        decisions=tuple(decision.value for decision in DECISIONS),
        modules=modules,
        owners=owners,
        saved_for=saved_for,
        ranges=axis.ranges,
        segments=axis.placed(segments),
        segment_facts=_segment_facts(history),
        peaks=dict(peaks),
        spans=_spans(history),
    )


def with_final_blocks(history: DeviceHistory) -> DeviceHistory:
    """Return a history without events as one of the blocks in use in its final snapshot: they live at every moment."""
    blocks = history.rank.table("blocks")
    rows = _final_rows(history)
    requested, num = blocks["requested_bytes"][rows], len(rows)
    start, num_moments = np.zeros(num, np.int64), np.full(num, len(history.moments), np.int64)
    is_pending = blocks["state"][rows] == history.rank.string_id(BlockState.ACTIVE_PENDING_FREE.value)
    lifetimes = Lifetimes(
        address=blocks["address"][rows],
        size_bytes=np.where(requested == NULL, blocks["size_bytes"][rows], requested),
        stack=blocks["stack"][rows],
        start=start,
        in_use_end=np.where(is_pending, start, num_moments),
        end=num_moments,
        is_initial=np.ones(num, np.bool_),
        num_moments=len(history.moments),
        num_unpaired=0,
        has_free_requests=False,
    )
    attribution = replace(
        history.attribution,
        category=np.full(num, CATEGORIES.index(Category.UNKNOWN), np.int8),
        decision=np.full(num, DECISIONS.index(Decision.UNKNOWN), np.int8),
        owner_row=np.full(num, NULL, np.int64),
        saved_row=np.full(num, NULL, np.int64),
    )
    return replace(history, lifetimes=lifetimes, attribution=attribution)


def _final_rows(history: DeviceHistory) -> IntArray:
    """Return the rows of the blocks of the device that are in use or pending in the final snapshot."""
    rank, blocks = history.rank, history.rank.table("blocks")
    if not len(blocks):
        return np.zeros(0, np.int64)
    of_device = rank.table("segments")["device"][blocks["segment"]] == rank.string_id(history.device)
    return np.flatnonzero(of_device & (blocks["state"] != rank.string_id(BlockState.INACTIVE.value)))


def _final_block_bytes(history: DeviceHistory) -> IntArray:
    return np.asarray(history.rank.table("blocks")["size_bytes"][_final_rows(history)])


def _block_bytes(history: DeviceHistory, order: IntArray) -> IntArray | None:
    """Return the whole block of each allocation as the model of the allocator has it, requested bytes where it is not
    part of the replay; `None` without a replay."""
    replay = None if history.replayed is None else history.replayed.replay
    if replay is None or replay.start is None:
        return None
    lifetimes, moments = history.lifetimes, history.moments
    sizes = lifetimes.size_bytes.copy()
    at = np.searchsorted(replay.rows, moments.event[lifetimes.start])
    at = np.minimum(at, len(replay.rows) - 1)
    is_replayed = ~lifetimes.is_initial & (replay.rows[at] == moments.event[lifetimes.start])
    blocks = np.where(is_replayed, replay.block_bytes[at], 0)
    of_start = {
        block.address: block.size_bytes
        for segment in replay.start.segments
        for block in segment.blocks
        if block.requested_bytes is not None
    }
    for row in np.flatnonzero(lifetimes.is_initial).tolist():
        blocks[row] = of_start.get(int(lifetimes.address[row]), 0)
    return np.asarray(np.maximum(blocks, sizes)[order])


def _stacks(rank: RankTrace, stack: IntArray) -> tuple[IntArray, IntArray, IntArray, tuple[str, ...]]:
    """Return the stacks that are named and those around them, numbered anew, and their frames as text."""
    parents, frame_of = rank.table("stacks")["parent"], rank.table("stacks")["frame"]
    used: IntArray = np.unique(stack[stack != NULL])
    newest = used
    while len(newest):
        around = np.unique(parents[newest])
        newest = np.setdiff1d(around[around != NULL], used, assume_unique=True)
        used = np.union1d(used, newest)
    frame_rows, frame = np.unique(frame_of[used], return_inverse=True)
    parent = parents[used]
    frames = tuple(_frame_text(rank, int(row)) for row in frame_rows)
    return _renumbered(used, stack), np.asarray(frame, np.int64), _renumbered(used, parent), frames


def _renumbered(used: IntArray, rows: IntArray) -> IntArray:
    """Return the positions of rows in an ascending array that holds them all; -1 for null."""
    found: IntArray = np.searchsorted(used, rows)
    return np.where(rows == NULL, -1, found)


def _frame_text(rank: RankTrace, frame: int) -> str:
    """Return one frame as "file:line function"."""
    frames = rank.table("frames")
    file, line = rank.text(int(frames["file"][frame])), int(frames["line"][frame])
    place = f"{file}:{line}" if file and line else file or ""
    return f"{place} {rank.text(int(frames['function'][frame])) or ''}".strip()


def _texts(rank: RankTrace, ids: IntArray) -> tuple[IntArray, tuple[str, ...]]:
    """Return string ids numbered anew, -1 for null, and the strings."""
    used = np.unique(ids[ids != NULL])
    return _renumbered(used, ids), tuple(rank.strings[one] for one in used.tolist())


def _named(
    rank: RankTrace, table_name: str, name: str, rows: IntArray
) -> tuple[IntArray, tuple[tuple[str, str | None, str | None], ...]]:
    """Return which name, dtype and shape each row of owners or saved gives, each combination once."""
    table: ColumnTable = rank.table(table_name)
    known = np.flatnonzero(rows != NULL)
    found = np.full(len(rows), -1, np.int64)
    if not len(known):
        return found, ()
    chosen = rows[known]
    ids = np.stack([table[column][chosen] for column in (name, "dtype", "shape")], axis=1)
    distinct, code = np.unique(ids, axis=0, return_inverse=True)
    found[known] = code.reshape(-1)
    return found, tuple(
        (rank.text(one) or "", rank.text(two), rank.text(three)) for one, two, three in distinct.tolist()
    )


def _steps(history: DeviceHistory, start: IntArray, is_initial: npt.NDArray[np.bool_]) -> IntArray:
    """Return the step of each moment as `marks.step_at` tells it; -1 where it is not known."""
    steps = history.rank.table("steps")
    if not len(steps) or not history.moments.has_times:
        return np.full(len(start), -1, np.int64)
    times = history.moments.time_ns[start]
    row = np.searchsorted(steps["start_ns"], times, side="left") - 1
    at = np.maximum(row, 0)
    is_over = (steps["end_ns"][at] != NULL) & (times > steps["end_ns"][at])
    found = np.where(row < 0, 0, np.where(is_over, -1, steps["step"][at]))
    return np.where(is_initial, -1, found)


def _segment_facts(history: DeviceHistory) -> tuple[SegmentFact, ...]:
    """Return what the final snapshot says of each of its segments, of all devices."""
    rank, segments = history.rank, history.rank.table("segments")
    facts = []
    for row in segments.rows():
        pool_id = rank.text(row["pool_id"])
        kind = rank.text(row["segment_type"]) or ""
        pool = kind if pool_id in (None, DEFAULT_POOL) else f"{kind}, private pool {pool_id}"
        facts.append(SegmentFact(stream=row["stream"] or 0, pool=pool, is_expandable=bool(row["is_expandable"])))
    return tuple(facts)


def _spans(history: DeviceHistory) -> tuple[tuple[int, int, str, str], ...]:
    """Return steps and phases as stretches of moments."""
    if not history.moments.has_times:
        return ()
    rank, found = history.rank, []
    for lane, name in (("step", "step"), ("phase", "phase")):
        table = rank.table(f"{lane}s")
        for row in table.rows():
            if row["start_ns"] is None or (lane == "step" and not row["recorded"] and row["end_ns"] is not None):
                continue
            first, last = _moments(history, row["start_ns"], row["end_ns"])
            found.append((first, last, lane, str(row["step"]) if lane == "step" else rank.text(row[name]) or ""))
    return tuple(sorted(found, key=lambda span: (span[0], -span[1])))


def _moments(history: DeviceHistory, start_ns: int, end_ns: int | None) -> tuple[int, int]:
    moments = history.moments
    return moments.at_time(start_ns), len(moments) - 1 if end_ns is None else moments.at_time(end_ns)
