"""The contract of `memtrace report --json`, as a check that tests share: keys, types, and sums that must hold."""

from __future__ import annotations

from typing import Any

STATE = (
    "allocated_bytes",
    "requested_bytes",
    "pending_free_bytes",
    "reserved_bytes",
    "device_used_bytes",
    "non_torch_bytes",
    "by_category",
    "by_decision",
)
PEAK = (*STATE, "time_ns", "step", "phase", "module", "predicted")
RANK = (
    "rank",
    "device",
    "source",
    "complete",
    "num_events",
    "num_allocations",
    "capacity_bytes",
    "peak",
    "first_step_peak",
    "steady_state_peak",
    "end",
    "max_reserved_bytes",
    "steps",
    "oom",
    "warnings",
)
STEP = (
    "step",
    "skipped",
    "num_microbatches",
    "peak_allocated_bytes",
    "max_reserved_bytes",
    "num_device_mallocs",
    "end",
    "phases",
)


def check_report(document: dict[str, Any]) -> None:
    """Assert that a document is a report of the contract."""
    assert (document["format"], document["version"]) == ("memtrace-report", 1)
    assert document["verdict"]
    assert isinstance(document["findings"], list)
    assert document["ranks"]
    for rank in document["ranks"]:
        _check_rank(rank)


def _check_rank(rank: dict[str, Any]) -> None:
    assert set(RANK) <= set(rank)
    assert rank["source"] in ("recorded", "snapshot", "kineto", "predicted")
    _check_state(rank["peak"], PEAK)
    _check_state(rank["end"], STATE)
    for name in ("first_step_peak", "steady_state_peak"):
        if rank[name] is not None:
            _check_state(rank[name], PEAK)
            # What was predicted lies ahead: it may be larger than anything that was recorded.
            if not rank[name]["predicted"]:
                assert (rank[name]["requested_bytes"] or 0) <= rank["peak"]["requested_bytes"]
    for step in rank["steps"]:
        assert set(STEP) <= set(step)
        if step["end"] is not None:
            _check_state(step["end"], STATE)
    for note in rank["warnings"]:
        assert note["slug"]
        assert note["message"]
    _check_numbers(rank)


def _check_state(state: dict[str, Any], keys: tuple[str, ...]) -> None:
    assert set(keys) <= set(state)
    assert "unknown" in state["by_category"]
    total = state["requested_bytes"]
    if total is not None:
        assert sum(state["by_category"].values()) == total
        assert sum(state["by_decision"].values()) == total


def _check_numbers(value: Any, name: str = "") -> None:
    """Bytes and times are ints that are never negative."""
    if isinstance(value, dict):
        for key, one in value.items():
            _check_numbers(one, key)
    elif isinstance(value, list):
        for one in value:
            _check_numbers(one, name)
    elif name.endswith(("_bytes", "_ns")) and value is not None:
        assert type(value) is int, name
        assert value >= 0, name
