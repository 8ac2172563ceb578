"""Where a history repeats itself, event by event: the steps of a training program that has settled.

The model decides by its state and by the events alone. Once it is in the state in which it was one period ago, what
follows repeats as long as the events do, and need not be replayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from memtrace.allocator.history import History
from memtrace.allocator.model import Allocator
from memtrace.allocator.results import IntArray

LEAST_PERIODS = 8
"""Fewer are replayed as quickly as they are looked for."""
_LEAST_EVENTS = 50_000
"""A shorter history is replayed in some hundredths of a second."""
_ALIKE = 256
"""Events in a row that have to be the same before a distance is taken for a period."""
_MAX_TRIED = 64
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64)


@dataclass(frozen=True, slots=True)
class Repeat:
    """Events from `start` to `stop` each of which is the one a period before it."""

    start: int
    stop: int
    period: int


def find_repeat(history: History) -> Repeat | None:
    """Return the longest stretch of a history that repeats itself, by the periods at its quarters."""
    num_events = len(history.action)
    if num_events < _LEAST_EVENTS:
        return None
    columns = (history.action, history.address, history.size, history.stream)
    with np.errstate(over="ignore"):
        keys = np.bitwise_xor.reduce(
            [column.astype(np.uint64) * factor for column, factor in zip(columns, _FACTORS, strict=True)]
        )
    periods = {_period(keys, num_events * quarter // 4) for quarter in (1, 2, 3)}
    stretches = [_longest(columns, period) for period in periods if period is not None]
    long_enough = [one for one in stretches if one.stop - one.start >= LEAST_PERIODS * one.period]
    return max(long_enough, key=lambda one: one.stop - one.start, default=None)


def _longest(columns: tuple[IntArray, ...], period: int) -> Repeat:
    """Return the longest stretch of events that are those of a period before."""
    same = np.ones(len(columns[0]) - period, np.bool_)
    for column in columns:
        same &= column[period:] == column[:-period]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    if not len(edges):
        return Repeat(period, period, period)
    starts, stops = edges[::2] + period, edges[1::2] + period
    longest = int(np.argmax(stops - starts))
    return Repeat(int(starts[longest]), int(stops[longest]), period)


def _period(keys: np.ndarray[Any, np.dtype[np.uint64]], at: int) -> int | None:
    """Return the distance after which the events at a place come again."""
    later = np.flatnonzero(keys[at + 1 : -_ALIKE] == keys[at]) + 1
    events = keys[at : at + _ALIKE]
    for distance in later[:_MAX_TRIED].tolist():
        if np.array_equal(keys[at + distance : at + distance + _ALIKE], events):
            return int(distance)
    return None


def state_key(allocator: Allocator) -> Any:
    """Return what tells the states of an allocator apart: equal keys behave alike ever after.

    Ages for garbage collection are not in it: it must be off.
    """
    pools = [allocator.small, allocator.large]
    pools += [pool for _, pair in sorted(allocator.private.items()) for pool in pair]
    live = {
        address: (block.size, block.order, block.requested, block.state, block.stream)
        for address, block in allocator.live.items()
    }
    free = [
        {stream: [(size, order) for size, order, _ in entries] for stream, entries in pool.free.items() if entries}
        for pool in pools
    ]
    unmapped = [
        {
            stream: [(address, block.size) for address, block in entries]
            for stream, entries in pool.unmapped.items()
            if entries
        }
        for pool in pools
    ]
    return live, free, unmapped, set(allocator.heads), [one.address for one in allocator.expandables]


def repeat_values(values: IntArray, start: int, stop: int, period: int) -> None:
    """Let values from `start` to `stop` be those of the period before. Affects: `values`."""
    times = -(-(stop - start) // period)
    values[start:stop] = np.tile(values[start - period : start], times)[: stop - start]
