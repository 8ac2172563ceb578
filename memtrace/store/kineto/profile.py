"""Profiles of torch (Kineto, Chrome trace events) as tables: memory events, activities, steps, annotations.

In: the parsed JSON, an object with `traceEvents` or a plain list. Out: a `RankTrace`. Files of 2021 have only Bytes,
Device Type and Device Id in a `[memory]` event, words as thread ids, and steps among the operators.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.schema.names import Source
from memtrace.schema.tables import ANNOTATIONS, COLLECTIVES, KERNELS, STEPS
from memtrace.store.build import build_rank, table_of_rows
from memtrace.store.columns import NULL, Array, ColumnTable, IntArray, check_times, int_column
from memtrace.store.header import MAX_COUNT
from memtrace.store.kineto.collectives import collectives_table
from memtrace.store.kineto.memory import memory_tables
from memtrace.store.strings import StringTable
from memtrace.store.trace import LoadWarning, RankTrace

_STEP_NAME = re.compile(r"ProfilerStep#(\d{1,15})")
_MAX_TIME_US = 2**62 // 1000


def is_profile(document: Any) -> bool:
    """Return whether a parsed JSON document is a profile."""
    if isinstance(document, dict):
        return isinstance(document.get("traceEvents"), list)
    return isinstance(document, list) and any(isinstance(one, dict) and "ph" in one for one in document[:100])


def read_profile(document: Any, *, where: str) -> RankTrace:
    """Return the trace that a profile holds.

    Raises:
        TraceReadError: it is damaged.
    """
    facts: Mapping[str, Any] = document if isinstance(document, dict) else {}
    entries = facts["traceEvents"] if facts else document
    events = [entry for entry in entries if isinstance(entry, dict)]
    warnings = []
    if len(events) < len(entries):
        message = "The profile holds entries that are no events; they are ignored."
        warnings.append(LoadWarning(slug="unknown-fields", message=message, count=len(entries) - len(events)))
    base_ns = _base_ns(facts, where)
    strings = StringTable()
    memory_entries = [one for one in events if one.get("name") == "[memory]" and isinstance(one.get("args"), dict)]
    times = _times_ns([one.get("ts") for one in memory_entries], base_ns, where=f"{where}: ts")
    memory, devices, unseen = memory_tables(memory_entries, times, strings, where=where)
    if not memory_entries:
        message = "The profile holds no memory events (profile_memory=True records them)."
        warnings.append(LoadWarning(slug="no-history", message=message))
    activities = activity_tables(events, base_ns, strings, where=where)
    return build_rank(
        header=_header(facts, devices, activities, strings, has_memory=bool(memory_entries)),
        strings=strings,
        tables={**memory, **activities},
        warnings=[*warnings, *unseen],
    )


def read_activities(document: Any, strings: StringTable, *, where: str) -> dict[str, ColumnTable]:
    """Return the tables `kernels` and `collectives` of a profile that stands beside a chunk of a recording.

    Raises:
        TraceReadError: it is no profile, or damaged.
    """
    if not is_profile(document):
        raise TraceReadError(f"{where}: not a profile", slug="wrong-kind")
    facts: Mapping[str, Any] = document if isinstance(document, dict) else {}
    entries = facts["traceEvents"] if facts else document
    events = [entry for entry in entries if isinstance(entry, dict)]
    activities = _activities(events)
    kernels = _kernels(activities, _base_ns(facts, where), strings, where)
    return {KERNELS.name: kernels, COLLECTIVES.name: collectives_table(activities, kernels, strings)}


def activity_tables(
    events: Sequence[dict[str, Any]], base_ns: int, strings: StringTable, *, where: str
) -> dict[str, ColumnTable]:
    """Return the tables kernels, collectives, steps and annotations from the events that have a duration."""
    activities = _activities(events)
    kernels = _kernels(activities, base_ns, strings, where)
    starts = kernels["start_ns"].tolist()
    ends = (kernels["start_ns"] + kernels["duration_ns"]).tolist()
    steps: list[tuple[int, ...]] = []
    annotations: list[tuple[int, ...]] = []
    for at, one in enumerate(activities):
        kind, name = one.get("cat"), one.get("name")
        # The copy of a range on the device side is not the range.
        if not isinstance(name, str) or kind == "gpu_user_annotation":
            continue
        found = _STEP_NAME.fullmatch(name)
        if found:
            known = (int(found[1]), starts[at], ends[at], False, True, 0)
            steps.append((*known, *(NULL,) * (len(STEPS.columns) - len(known))))
        elif kind == "user_annotation":
            annotations.append((strings.id(name), starts[at], ends[at], NULL))
    return {
        KERNELS.name: kernels,
        COLLECTIVES.name: collectives_table(activities, kernels, strings),
        STEPS.name: table_of_rows(STEPS, sorted(steps, key=lambda step: (step[0], step[1]))),
        ANNOTATIONS.name: table_of_rows(ANNOTATIONS, annotations),
    }


def _activities(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in events if one.get("ph") == "X" and _is_number(one.get("dur")) and _is_number(one.get("ts"))]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _kernels(activities: Sequence[dict[str, Any]], base_ns: int, strings: StringTable, where: str) -> ColumnTable:
    """Return every activity that has a duration."""
    args = [one["args"] if isinstance(one.get("args"), dict) else {} for one in activities]
    columns: dict[str, Array] = {
        "start_ns": _times_ns([one["ts"] for one in activities], base_ns, where=f"{where}: ts"),
        "duration_ns": _times_ns([one["dur"] for one in activities], 0, where=f"{where}: dur"),
        "name": _text_ids(strings, [one.get("name") for one in activities]),
        "kind": _text_ids(strings, [one.get("cat") for one in activities]),
        "process": _integers([one.get("pid") for one in activities]),
        "thread": _integers([one.get("tid") for one in activities]),
        "device": _integers([one.get("device") for one in args]),
        "stream": _integers([one.get("stream") for one in args]),
        "correlation": _integers([one.get("correlation") for one in args]),
    }
    return ColumnTable(KERNELS, columns)


def relative_ns(times_us: list[Any], *, where: str) -> IntArray:
    """Return microseconds as whole nanoseconds.

    Whole microseconds and their fraction are taken apart: a Unix time in µs times 1000 is, as a float, off by up to
    256 ns.

    >>> relative_ns([1623142623460121, 1682725898082228.25, 0.001], where="ts").tolist()
    [1623142623460121000, 1682725898082228250, 1]

    Raises:
        TraceReadError: not a number, or beyond what 64 bits of nanoseconds hold.
    """
    kinds = set(map(type, times_us))
    if not kinds <= {int, float}:
        raise TraceReadError(f"{where}: a time that is not a number", slug="file-damaged")
    if kinds <= {int}:
        whole = int_column(times_us, where=where)
        fraction_ns = np.zeros(len(whole), np.int64)
    else:
        times = np.array(times_us, np.float64)
        if not np.all(np.isfinite(times)) or np.any(np.abs(times) > _MAX_TIME_US):
            raise TraceReadError(f"{where}: a time out of range", slug="file-damaged")
        whole = np.floor(times).astype(np.int64)
        fraction_ns = np.rint((times - np.floor(times)) * 1000).astype(np.int64)
    if len(whole) and (int(whole.max()) > _MAX_TIME_US or int(whole.min()) < -_MAX_TIME_US):
        raise TraceReadError(f"{where}: a time out of range", slug="file-damaged")
    return np.asarray(whole * 1000 + fraction_ns, dtype=np.int64)


def _times_ns(times_us: list[Any], base_ns: int, *, where: str) -> IntArray:
    return check_times(relative_ns(times_us, where=where) + base_ns, where=where)


def _base_ns(facts: Mapping[str, Any], where: str) -> int:
    """Return the Unix time that the times of the file count from; old files hold Unix times."""
    base = facts.get("baseTimeNanoseconds", 0)
    if not isinstance(base, int) or not 0 <= base < 2**62:
        raise TraceReadError(f"{where}: baseTimeNanoseconds is not a time", slug="file-damaged")
    return base


def _text_ids(strings: StringTable, values: list[Any]) -> IntArray:
    """Return the ids of texts; what is none is empty."""
    ids = {text: strings.id(text) for text in dict.fromkeys(value for value in values if isinstance(value, str))}
    empty = strings.id("") if len(ids) == 0 or not all(isinstance(value, str) for value in values) else NULL
    return np.array([ids.get(value, empty) if isinstance(value, str) else empty for value in values], np.int64)


def _integers(values: list[Any]) -> IntArray:
    """Return numbers as a column; words, fractions and numbers beyond 64 bits are null."""
    return np.array([value if type(value) is int and abs(value) < 2**63 else NULL for value in values], np.int64)


def _header(
    facts: Mapping[str, Any],
    memory_devices: Sequence[str],
    activities: Mapping[str, ColumnTable],
    strings: StringTable,
    *,
    has_memory: bool,
) -> dict[str, Any]:
    """Return the header facts that a profile knows."""
    kernels = activities[KERNELS.name]
    ends = kernels["start_ns"] + kernels["duration_ns"]
    distributed = facts.get("distributedInfo")
    run: Mapping[str, Any] = distributed if isinstance(distributed, dict) else {}
    kind = "hip" if any(name.startswith(("hip_", "roctracer")) for name in facts) else "cuda"
    return {
        "source": Source.KINETO.value,
        "rank": _count(run.get("rank")),
        "world_size": _count(run.get("world_size")),
        "start_ns": int(kernels["start_ns"].min()) if len(kernels) else None,
        "end_ns": int(ends.max()) if len(kernels) else None,
        "complete": True,
        "devices": _devices(facts.get("deviceProperties"), _used_devices(kernels, strings, kind), memory_devices, kind),
        "sources": {"events": "kineto" if has_memory else None, "kernels": "kineto" if len(kernels) else None},
        "versions": {
            name: facts[name]
            for name in ("cuda_runtime_version", "cuda_driver_version", "hip_runtime_version", "hip_driver_version")
            if type(facts.get(name)) is int
        },
    }


def _count(value: Any) -> int | None:
    """Return a number of a rank or of ranks, `None` for what cannot be one."""
    return value if type(value) is int and 0 <= value < MAX_COUNT else None


def _used_devices(kernels: ColumnTable, strings: StringTable, kind: str) -> list[str]:
    """Return the devices that kernels ran on."""
    is_kernel = np.isin(kernels["kind"], [strings.id(name) for name in ("kernel", "Kernel")])
    used = np.unique(kernels["device"][is_kernel & ~kernels.is_null("device")])
    return [f"{kind}:{index}" for index in used.tolist() if index >= 0]


def _devices(properties: Any, used: Sequence[str], memory_devices: Sequence[str], kind: str) -> list[dict[str, Any]]:
    """Return the devices, those in use first, with their capacity where the profile names it."""
    devices: dict[str, dict[str, Any]] = {name: {"name": name, "capacity_bytes": None, "kind": kind} for name in used}
    for one in properties if isinstance(properties, list) else ():
        if not isinstance(one, dict) or type(one.get("id")) is not int:
            continue
        name, capacity = f"{kind}:{one['id']}", one.get("totalGlobalMem")
        model = one.get("name")
        devices[name] = {
            "name": name,
            "capacity_bytes": capacity if type(capacity) is int and capacity > 0 else None,
            "kind": kind,
            "model": model if isinstance(model, str) else None,
        }
    for name in memory_devices:
        devices.setdefault(name, {"name": name, "capacity_bytes": None, "kind": name.partition(":")[0]})
    return list(devices.values())
