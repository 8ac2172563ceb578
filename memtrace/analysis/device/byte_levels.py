"""How many bytes there were after each moment: requested by category and decision, pending, reserved, allocated.

In: moments, lifetimes and attribution of one device. Out: `Levels`, arrays over the moments. Running sums, no loop over
events. What cannot be known without the allocator model is `None`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES, DECISIONS, Attribution
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import SEGMENT_SIGNS, Epoch, Moments
from memtrace.schema.names import Action, Category, Decision, Source
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

Kind = tuple[Category, Decision]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Levels:
    """Memory of one device over its moments, bytes."""

    requested: IntArray
    """Bytes asked for, over blocks in use."""
    by_kind: dict[Kind, IntArray]
    """The same by category and decision; unknown is always there."""
    pending: IntArray | None
    """Blocks awaiting a stream; `None` where the history does not tell."""
    reserved: IntArray | None
    """Bytes of all segments; `None` on the CPU and where its start is not known."""
    allocated: IntArray | None
    """Whole blocks in use; `None` where it needs the allocator model."""
    base: IntArray
    """Part of unknown that no known block makes up: live before its epoch, and never seen."""
    overdrawn_bytes: int
    """Bytes by which known blocks exceed what the recording says was live when an epoch began."""


def build_levels(
    rank: RankTrace,
    device: str,
    moments: Moments,
    lifetimes: Lifetimes,
    attribution: Attribution,
    *,
    owns_marks: bool,
    replayed: IntArray | None = None,
) -> Levels:
    """Return the levels of one device.

    `owns_marks` says whether the reserved bytes of steps are of this device; `replayed` are the allocated bytes that
    the model of the allocator found.
    """
    starts = _epoch_start_bytes(rank, moments)
    by_kind = _by_kind(lifetimes, attribution, len(moments))
    base, overdrawn = _base(rank, moments, lifetimes, starts)
    unknown = (Category.UNKNOWN, Decision.UNKNOWN)
    by_kind[unknown] = by_kind.get(unknown, np.zeros(len(moments), np.int64)) + base
    requested = sum(by_kind.values(), start=np.zeros(len(moments), np.int64))
    is_cpu = device == "cpu"
    return Levels(
        requested=requested,
        by_kind=by_kind,
        pending=_pending(lifetimes, is_cpu=is_cpu),
        reserved=None if is_cpu else _reserved(rank, device, moments, owns_marks=owns_marks),
        allocated=requested
        if is_cpu
        else replayed
        if replayed is not None
        else _profiled_totals(rank, moments, starts),
        base=base,
        overdrawn_bytes=overdrawn,
    )


def _by_kind(lifetimes: Lifetimes, attribution: Attribution, num_moments: int) -> dict[Kind, IntArray]:
    """Return the level of each category and decision that any allocation has."""
    code = attribution.category.astype(np.int64) * len(DECISIONS) + attribution.decision
    levels: dict[Kind, IntArray] = {}
    for one in np.unique(code).tolist():
        rows = slice(None) if len(levels) == 0 and np.all(code == one) else np.flatnonzero(code == one)
        category, decision = divmod(one, len(DECISIONS))
        levels[CATEGORIES[category], DECISIONS[decision]] = running_level(
            lifetimes.start[rows], lifetimes.in_use_end[rows], lifetimes.size_bytes[rows], num_moments
        )
    return levels


def running_level(start: IntArray, end: IntArray, size_bytes: IntArray, num_moments: int) -> IntArray:
    """Return, for each moment, the bytes of the intervals [start, end) that hold it.

    >>> running_level(np.array([0, 1]), np.array([2, 3]), np.array([10, 5]), 4).tolist()
    [10, 15, 5, 0]
    """
    deltas = np.zeros(num_moments + 1, np.int64)
    np.add.at(deltas, start, size_bytes)
    np.subtract.at(deltas, end, size_bytes)
    return np.cumsum(deltas[:-1])


def _epoch_start_bytes(rank: RankTrace, moments: Moments) -> list[int | None]:
    """Return for each epoch what was live when it began, as the recording itself says; `None` where it does not."""
    if rank.source == Source.SNAPSHOT.value:
        # A snapshot tells every block that was live: nothing can be missing.
        return [None] * len(moments.epochs)
    if rank.source == Source.KINETO.value:
        return [_profiled_start(rank, moments, epoch) for epoch in moments.epochs]
    initial = rank.table("windows")["initial_bytes"]
    of_epochs = [int(initial[epoch.windows[0]]) if epoch.windows else NULL for epoch in moments.epochs]
    return [None if value == NULL else value for value in of_epochs]


def _profiled_start(rank: RankTrace, moments: Moments, epoch: Epoch) -> int | None:
    """Return what the allocator's own total was before the first event of an epoch."""
    if epoch.start + 1 >= epoch.stop:
        return None
    events, row = rank.table("events"), int(moments.event[epoch.start + 1])
    total = int(events["total_bytes"][row])
    if total == NULL:
        return None
    is_alloc = int(events["action"][row]) == rank.string_id(Action.ALLOC.value)
    size = int(events["size_bytes"][row])
    return max(total - size if is_alloc else total + size, 0)


def _base(
    rank: RankTrace, moments: Moments, lifetimes: Lifetimes, starts: Sequence[int | None]
) -> tuple[IntArray, int]:
    """Return the bytes at each moment that no known block makes up, and by how much known ones exceed the record."""
    base, overdrawn = _unaddressed(rank, moments), 0
    for epoch, start_bytes in zip(moments.epochs, starts, strict=True):
        if start_bytes is None:
            # Frees of blocks that nobody saw begin would pull the level below zero: they were live at the start.
            base[epoch.start : epoch.stop] -= min(int(base[epoch.start : epoch.stop].min()), 0)
            continue
        known = lifetimes.is_initial & (lifetimes.start == epoch.start) & (lifetimes.in_use_end > epoch.start)
        rest = start_bytes - int(lifetimes.size_bytes[known].sum())
        overdrawn = max(overdrawn, -rest)
        base[epoch.start : epoch.stop] += max(rest, 0)
    return base, overdrawn


def _unaddressed(rank: RankTrace, moments: Moments) -> IntArray:
    """Return the running sum, in each epoch, of events without an address: old profiles have sizes only."""
    deltas = np.zeros(len(moments), np.int64)
    events = rank.table("events")
    without = events["address"][moments.rows] == NULL
    if without.any():
        sizes = events["size_bytes"][moments.rows]
        for action, sign in ((Action.ALLOC, 1), (Action.FREE_COMPLETED, -1)):
            chosen = without & moments.is_action(rank, action)
            deltas[moments.of_event[chosen]] = sign * sizes[chosen]
        for epoch in moments.epochs:
            deltas[epoch.start : epoch.stop] = np.cumsum(deltas[epoch.start : epoch.stop])
    return deltas


def _pending(lifetimes: Lifetimes, *, is_cpu: bool) -> IntArray | None:
    """Return the bytes whose free was requested and not completed."""
    if is_cpu:
        # The CPU allocator frees at once.
        return np.zeros(lifetimes.num_moments, np.int64)
    if not lifetimes.has_free_requests:
        return None
    waits = np.flatnonzero(lifetimes.end > lifetimes.in_use_end)
    return running_level(
        lifetimes.in_use_end[waits], lifetimes.end[waits], lifetimes.size_bytes[waits], lifetimes.num_moments
    )


def _reserved(rank: RankTrace, device: str, moments: Moments, *, owns_marks: bool) -> IntArray | None:
    """Return the bytes of all segments: the running sum of segment events, fixed in each epoch where it is known."""
    deltas = np.zeros(len(moments), np.int64)
    sizes = rank.table("events")["size_bytes"][moments.rows]
    for action, sign in SEGMENT_SIGNS.items():
        chosen = moments.is_action(rank, action)
        deltas[moments.of_event[chosen]] = sign * sizes[chosen]
    level = np.cumsum(deltas)
    for epoch in moments.epochs:
        known = _known_reserved(rank, device, moments, epoch, owns_marks=owns_marks)
        if known is None:
            return None
        moment, num_bytes = known
        level[epoch.start : epoch.stop] += num_bytes - int(level[moment])
    return level


def _known_reserved(
    rank: RankTrace, device: str, moments: Moments, epoch: Epoch, *, owns_marks: bool
) -> tuple[int, int] | None:
    """Return a moment of an epoch and its reserved bytes: from final segments, a mark of a step, or an empty start."""
    segments = rank.table("segments")
    if epoch.stop == len(moments) and len(segments):
        of_device = segments["device"] == rank.string_id(device)
        return epoch.stop - 1, int(segments["total_bytes"][of_device].sum())
    steps = rank.table("steps")
    if owns_marks and moments.has_times:
        marked = (steps["reserved_bytes"] != NULL) & (steps["end_ns"] != NULL)
        at_end = moments.at_times(steps["end_ns"])
        inside = np.flatnonzero(marked & (at_end >= epoch.start) & (at_end < epoch.stop) & steps["recorded"])
        if len(inside):
            return int(at_end[inside[0]]), int(steps["reserved_bytes"][inside[0]])
    if epoch.windows and int(rank.table("windows")["initial_bytes"][epoch.windows[0]]) == 0 and epoch.start == 0:
        # Nothing was live when the recording began, so nothing was reserved.
        return 0, 0
    return None


def _profiled_totals(rank: RankTrace, moments: Moments, starts: Sequence[int | None]) -> IntArray | None:
    """Return the allocator's own total after each event, where a profile recorded it (bytes of whole blocks)."""
    if rank.source != Source.KINETO.value or any(start is None for start in starts):
        return None
    totals = np.full(len(moments), NULL, np.int64)
    totals[moments.of_event] = rank.table("events")["total_bytes"][moments.rows]
    for epoch, start in zip(moments.epochs, starts, strict=True):
        totals[epoch.start] = start or 0
    # Events without a total take over the one before.
    last_known = np.maximum.accumulate(np.where(totals == NULL, 0, np.arange(len(totals))))
    filled: IntArray = totals[last_known]
    return filled
