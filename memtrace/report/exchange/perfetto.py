"""A run as a trace of Chrome's JSON format, which Perfetto and chrome://tracing open.

In: `RankTracks`. Out: JSON. One process a rank; counters by category, slices for steps, phases, modules and, where a
profile was recorded, its activities. Times in the file are µs since the first one, so that a float holds every ns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from memtrace.analysis.results.tracks import Counter, Lane, RankTracks

_NS_PER_US = 1000


def perfetto_json(tracks: Sequence[RankTracks]) -> bytes:
    """Return the trace of some ranks; `baseTimeNanoseconds` is the Unix time of its zero."""
    base_ns = min((int(one[0]) for rank in tracks for one in _times(rank) if len(one)), default=0)
    events = [event for at, rank in enumerate(tracks) for event in _rank_events(at, rank, base_ns)]
    return orjson.dumps({"traceEvents": events, "displayTimeUnit": "ns", "baseTimeNanoseconds": base_ns})


def _times(rank: RankTracks) -> Iterator[Any]:
    yield from (counter.time_ns for counter in rank.counters)
    yield from (lane.start_ns for lane in rank.lanes)


def _rank_events(process: int, rank: RankTracks, base_ns: int) -> Iterator[dict[str, Any]]:
    name = f"process {process}" if rank.rank is None else f"rank {rank.rank}"
    yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": process, "args": {"sort_index": process}}
    for counter in rank.counters:
        yield from _counter_events(process, counter, base_ns)
    for thread, lane in enumerate(rank.lanes, start=1):
        yield {"ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": {"name": lane.name}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": thread, "args": {"sort_index": thread}}
        yield from _slice_events(process, thread, lane, base_ns)


def _counter_events(process: int, counter: Counter, base_ns: int) -> Iterator[dict[str, Any]]:
    for time_ns, num_bytes in zip(counter.time_ns.tolist(), counter.num_bytes.tolist(), strict=True):
        ts = (time_ns - base_ns) / _NS_PER_US
        yield {"ph": "C", "name": counter.name, "pid": process, "ts": ts, "args": {"bytes": num_bytes}}


def _slice_events(process: int, thread: int, lane: Lane, base_ns: int) -> Iterator[dict[str, Any]]:
    for start_ns, end_ns, name in zip(lane.start_ns.tolist(), lane.end_ns.tolist(), lane.name_of.tolist(), strict=True):
        yield {
            "ph": "X",
            "name": lane.names[name],
            "cat": lane.name,
            "pid": process,
            "tid": thread,
            "ts": (start_ns - base_ns) / _NS_PER_US,
            "dur": (end_ns - start_ns) / _NS_PER_US,
        }
