"""Where the time of a rank goes, as a part of the JSON document."""

from __future__ import annotations

from typing import Any

from memtrace.analysis.results.time import TimeResult, TimeSplit
from memtrace.report.json.plain import plain


def time_document(time: TimeResult) -> dict[str, Any]:
    """Return the value of `time` of a rank."""
    return {
        "window": time.window,
        "whole": _split(time.whole),
        "steps": [{"step": one.step, **_split(one)} for one in time.steps],
        "unfinished_steps": list(time.unfinished_steps),
        "num_unlinked": time.num_unlinked,
        "num_outside_steps": time.num_outside_steps,
        "num_devices": time.num_devices,
        "collectives": plain(time.collectives),
    }


def _split(split: TimeSplit) -> dict[str, Any]:
    return {
        "start_ns": split.start_ns,
        "end_ns": split.end_ns,
        "window_ns": split.window_ns,
        "num_activities": split.num_activities,
        "compute_ns": split.compute_ns,
        "communication_ns": split.communication_ns,
        "hidden_ns": split.hidden_ns,
        "exposed_ns": split.exposed_ns,
        "hidden_share": split.hidden_share,
        "copy_ns": split.copy_ns,
        "copy_only_ns": split.copy_only_ns,
        "other_ns": split.other_ns,
        "outside_ns": split.outside_ns,
        "unseen_ns": split.unseen_ns,
        "idle_ns": split.idle_ns,
        "data_ns": split.data_ns,
        "data_stall_ns": split.data_stall_ns,
        "allocator_ns": split.allocator_ns,
        "allocator_stall_ns": split.allocator_stall_ns,
    }
