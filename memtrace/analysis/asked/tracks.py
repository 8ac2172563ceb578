"""A run as counters and slices, for tools that draw time lines.

In: a rank. Out: `RankTracks`. Counters keep every value: one is written wherever the level changes. A slice that never
ended ends with the recording.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from memtrace.analysis.attribution.inferred_marks import with_inferred_marks
from memtrace.analysis.device.device_history import DeviceHistory, build_history, device_names
from memtrace.analysis.results.tracks import Counter, Lane, RankTracks
from memtrace.store.columns import NULL, ColumnTable, IntArray
from memtrace.store.trace import RankTrace


def rank_tracks(rank: RankTrace) -> RankTracks:
    """Return the counters and slices of a rank."""
    rank = with_inferred_marks(rank)
    names = device_names(rank)
    accelerators = [name for name in names if name != "cpu"]
    histories = [build_history(rank, name, owns_marks=accelerators == [name]) for name in names]
    counters = [counter for history in histories for counter in _counters(history)]
    return RankTracks(rank=rank.rank, counters=tuple(counters), lanes=tuple(_lanes(rank)))


def _counters(history: DeviceHistory) -> Iterator[Counter]:
    if not history.has_history or not history.moments.has_times:
        return
    by_category: dict[str, IntArray] = {}
    for (category, _), level in history.levels.by_kind.items():
        by_category[category.value] = by_category.get(category.value, np.zeros_like(level)) + level
    levels = dict(sorted(by_category.items())) | {
        "requested": history.levels.requested,
        "allocated": history.levels.allocated,
        "reserved": history.levels.reserved,
        "pending free": history.levels.pending,
    }
    for name, values in levels.items():
        if values is not None and values.any():
            yield _counter(f"{history.device} {name}", history.moments.time_ns, values)


def _counter(name: str, time_ns: IntArray, values: IntArray) -> Counter:
    changes = np.flatnonzero(np.diff(values, prepend=values[0] - 1))
    return Counter(name=name, time_ns=time_ns[changes], num_bytes=values[changes])


def _lanes(rank: RankTrace) -> Iterator[Lane]:
    last_ns = _last_time(rank)
    for lane, table, column in (
        ("steps", "steps", None),
        ("phases", "phases", "phase"),
        ("modules", "scopes", "module"),
    ):
        rows = rank.table(table)
        names = [f"step {step}" for step in rows["step"].tolist()] if column is None else None
        if len(rows):
            yield _lane(rank, lane, rows, column, names, last_ns)
    annotations = rank.table("annotations")
    known = np.flatnonzero(annotations["start_ns"] != NULL)
    if len(known):
        taken = ColumnTable(annotations.table, {name: values[known] for name, values in annotations.columns.items()})
        yield _lane(rank, "annotations", taken, "name", None, last_ns)
    yield from _activities(rank)


def _lane(
    rank: RankTrace, name: str, rows: ColumnTable, column: str | None, names: list[str] | None, last_ns: int
) -> Lane:
    ends = np.where(rows["end_ns"] == NULL, last_ns, rows["end_ns"])
    starts = rows["start_ns"]
    texts = names if column is None else [rank.text(int(one)) or "?" for one in rows[column].tolist()]
    # The outer of two that start together comes first, as viewers want nested slices.
    order = np.lexsort((-ends, starts))
    return _named(name, starts[order], np.maximum(ends, starts)[order], [(texts or [])[at] for at in order.tolist()])


def _named(name: str, starts: IntArray, ends: IntArray, texts: list[str]) -> Lane:
    ids = {text: at for at, text in enumerate(dict.fromkeys(texts))}
    name_of = np.array([ids[text] for text in texts], np.int64)
    return Lane(name=name, start_ns=starts, end_ns=ends, name_of=name_of, names=tuple(ids))


def _activities(rank: RankTrace) -> Iterator[Lane]:
    """Yield the activities of a profiler trace, one lane a thread or stream."""
    kernels = rank.table("kernels")
    if not len(kernels):
        return
    is_device = kernels["stream"] != NULL
    place = np.where(is_device, kernels["stream"], kernels["thread"])
    for device in (False, True):
        chosen = np.flatnonzero(is_device == device)
        for number in np.unique(place[chosen]).tolist():
            rows = chosen[place[chosen] == number]
            rows = rows[np.lexsort((-kernels["duration_ns"][rows], kernels["start_ns"][rows]))]
            starts = kernels["start_ns"][rows]
            texts = [rank.text(int(one)) or "?" for one in kernels["name"][rows].tolist()]
            where = ("stream" if device else "thread") + ("" if number == NULL else f" {number}")
            yield _named(where, starts, starts + np.maximum(kernels["duration_ns"][rows], 0), texts)


def _last_time(rank: RankTrace) -> int:
    times = [rank.table("events")["time_ns"], rank.table("phases")["end_ns"], rank.table("steps")["end_ns"]]
    return max((int(one.max()) for one in times if len(one)), default=0)
