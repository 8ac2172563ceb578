"""Fragmentation: what of reserved memory could not be used, by pool and over time, and whose blocks are in the way.

In: `DeviceHistory`. Out: `FragmentationResult`.

A recording of a GPU that the model of the allocator reproduces is followed through it; of any other snapshot the final
segments and blocks are looked at. The CPU has no such allocator: its requests are put through the model as if they had
gone to a GPU, and the result says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from memtrace.allocator.pressure import Growth, Moment, moments_after, pressure_of
from memtrace.allocator.whatif import Recording, read_recording
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.pools import final_pools, pools_of
from memtrace.analysis.device.shared_line import shared_line
from memtrace.analysis.device.steps import step_spans
from memtrace.analysis.results.diagnosis import FragmentationMoment, FragmentationResult
from memtrace.errors import MemtraceError
from memtrace.schema.names import Action, BlockState
from memtrace.store.columns import NULL

# Following a history costs some 10 µs an event; a longer one is judged by its final segments alone.
_MAX_EVENTS = 100_000
_WORTH_FOLLOWING_SHARE = 0.1
"""Idle part of the largest reserved bytes, below which a recording of a GPU is not followed."""
_MAX_STEP_ENDS = 12


def find_fragmentation(history: DeviceHistory) -> FragmentationResult | None:
    """Return what could not be used of what was reserved; `None` where nothing tells."""
    recording = _recording(history)
    if recording is None:
        pools = final_pools(history.rank, history.device)
        end = FragmentationMoment(name="end", step=None, event=None, pools=pools)
        return _result(moments=(end,)) if pools else None
    pressure = pressure_of(recording)
    if not pressure.growths and not recording.history.segments:
        return None
    labels = _labels(history, pressure.max_reserved_event)
    followed = moments_after(recording, [row for _, _, row in labels])
    worst = followed[0]
    growths = [one for one in pressure.growths if one.was_fragmented]
    fragmented = sum(one.taken_bytes for one in growths)
    return FragmentationResult(
        is_model=recording.initial is None,
        moments=tuple(
            FragmentationMoment(name=name, step=step, event=row, pools=pools_of(moment.state))
            for (name, step, row), moment in zip(labels, followed, strict=True)
        ),
        max_reserved_bytes=pressure.max_reserved_bytes,
        num_growths=len(pressure.growths),
        num_fragmented_growths=len(growths),
        fragmented_bytes=fragmented,
        wasted_bytes=min(
            fragmented,
            worst.state.inactive_split_bytes,
            pressure.max_reserved_bytes - pressure.peak_allocated_bytes,
        ),
        where=shared_line(history.rank, _in_the_way(history, worst)),
        requested_at=shared_line(history.rank, _of_growths(history, growths)),
    )


def _result(moments: tuple[FragmentationMoment, ...]) -> FragmentationResult:
    """Return what one moment tells on its own."""
    return FragmentationResult(
        is_model=False,
        moments=moments,
        max_reserved_bytes=None,
        num_growths=None,
        num_fragmented_growths=None,
        fragmented_bytes=None,
        wasted_bytes=None,
        where=None,
        requested_at=None,
    )


def _recording(history: DeviceHistory) -> Recording | None:
    """Return the requests to follow through the model; `None` where it cannot, or where it would show nothing."""
    if not history.num_allocs or len(history.moments) > _MAX_EVENTS or not (history.is_cpu or _is_idle(history)):
        return None
    try:
        return read_recording(history.rank, history.device, as_cuda=history.is_cpu)
    except MemtraceError:
        return None


def _is_idle(history: DeviceHistory) -> bool:
    """Return whether the model reproduced a history in which part of what was reserved lay idle, or that ran out."""
    allocated, reserved = history.levels.allocated, history.levels.reserved
    if history.replayed is None or allocated is None or reserved is None:
        return False
    most = int(reserved.max())
    ran_out = history.moments.is_action(history.rank, Action.OOM).any()
    return bool(ran_out) or most - int(allocated.max()) >= _WORTH_FOLLOWING_SHARE * most


def _labels(history: DeviceHistory, max_reserved_event: int) -> list[tuple[str, int | None, int]]:
    """Return the moments to look at: name, step, row of the events table; that of the largest reserved bytes first."""
    found: list[tuple[str, int | None, int]] = [("largest reserved", None, max_reserved_event)]
    # After a gap the model starts anew: it knows nothing of the steps before.
    since = history.moments.epochs[-1].start
    spans = [span for span in step_spans(history).values() if span.recorded and span.step >= 1 and span.last > since]
    half = _MAX_STEP_ENDS // 2
    shown = spans if len(spans) <= _MAX_STEP_ENDS else [*spans[:half], *spans[-half:]]
    found += [("end of step", span.step, int(history.moments.event[span.last])) for span in shown]
    ooms = np.flatnonzero(history.moments.is_action(history.rank, Action.OOM))
    found += [("out of memory", None, int(history.moments.rows[at])) for at in ooms[-1:].tolist()]
    return [*found, ("end", None, int(history.moments.event[history.last_moment]))]


def _in_the_way(history: DeviceHistory, moment: Moment) -> Iterable[tuple[int, int]]:
    """Return the stacks of the blocks that keep free pieces from being one, each with its share of those pieces."""
    weights: Counter[int] = Counter()
    for segment in moment.state.segments:
        free = sum(block.size_bytes for block in segment.blocks if block.state == BlockState.INACTIVE.value)
        used = [block.address for block in segment.blocks if block.state != BlockState.INACTIVE.value]
        if segment.is_small or not used:
            continue
        for address in used:
            row = moment.row_at.get(address, -1)
            if row >= 0:
                weights[row] += free // len(used)
    return _stacks(history, list(weights.items()))


def _of_growths(history: DeviceHistory, growths: Sequence[Growth]) -> Iterable[tuple[int, int]]:
    return _stacks(history, [(one.event, one.taken_bytes) for one in growths if one.event >= 0])


def _stacks(history: DeviceHistory, rows: Sequence[tuple[int, int]]) -> Iterable[tuple[int, Any]]:
    """Return the stacks of events that have one."""
    column = history.rank.table("events")["stack"]
    return [(int(column[row]), num_bytes) for row, num_bytes in rows if column[row] != NULL]
