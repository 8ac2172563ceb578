"""Gradients that are views of a communication bucket: its bytes are told apart, exactly and at every moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.analysis.device.modules import modules_at
from memtrace.analysis.device.peak import state_at
from memtrace.analysis.device.stacks import stacks_at
from tests.analysis.small_trace import event_rows, owner, rank_trace, scope, window
from tests.analysis.test_lifetimes import A, C

BUCKET = 100


def gradient(time: int, num_bytes: int, name: str, *, address: int = 1) -> dict[str, Any]:
    """Return a row of owners for a gradient that is a view of the bucket."""
    return owner(time, address, BUCKET, "gradient") | {"tensor_bytes": num_bytes, "name": name}


def bucket(time: int, *, address: int = 1) -> dict[str, Any]:
    return owner(time, address, BUCKET, "communication") | {"name": "bucket"}


def history_of(
    *owners: Mapping[str, Any], events: Sequence[Any] = ((A, 1, BUCKET), (A, 2, 7), (C, 1, BUCKET))
) -> DeviceHistory:
    tables = {"events": event_rows(list(events)), "windows": [window(0, len(events), initial=0)]}
    return build_history(rank_trace(**tables, owners=owners, scopes=[scope("model", 5, 15)]), "cpu", owns_marks=True)


def test_the_rest_of_a_bucket_is_communication() -> None:
    history = history_of(gradient(12, 30, "a"), gradient(12, 50, "b"), bucket(12))
    assert state_at(history, 1).by_category == {"gradient": 80, "communication": 20, "unknown": 0}
    assert state_at(history, 1).by_decision == {"owner": 100, "unknown": 0}
    assert state_at(history, 3).by_category == {"unknown": 7}
    assert modules_at(history, 1)[0].by_category == {"gradient": 80, "communication": 20}
    assert stacks_at(history, 2)[0].num_bytes == BUCKET + 7


def test_gradients_count_at_the_time_when_there_are_most() -> None:
    history = history_of(
        gradient(12, 30, "a"),
        bucket(12),
        gradient(14, 30, "a"),
        gradient(14, 50, "b"),
        bucket(14),
    )
    assert state_at(history, 1).by_category == {"gradient": 80, "communication": 20, "unknown": 0}


def test_rows_that_name_a_bucket_lead_to_its_first_part() -> None:
    history = history_of(gradient(12, 30, "a"), bucket(12), owner(22, 2, 7, "parameter"))
    rows = history.attribution.allocation_of_owner
    assert history.lifetimes.size_bytes[rows].tolist() == [30, 30, 7]
    assert [CATEGORIES[one].value for one in history.attribution.category[rows]] == [
        "gradient",
        "gradient",
        "parameter",
    ]
    names = [history.rank.text(int(history.rank.table("owners")["name"][row])) for row in history.attribution.owner_row]
    assert names == ["a", "bucket", "x"]


def test_buckets_without_views_and_gradients_without_buckets_stay_whole() -> None:
    assert len(history_of(bucket(12)).lifetimes) == 2
    assert len(history_of(gradient(12, 30, "a")).lifetimes) == 2
    full = history_of(gradient(12, 60, "a"), gradient(12, 40, "b"), bucket(12))
    assert state_at(full, 1).by_category == {"gradient": 100, "unknown": 0}


parts = st.lists(st.lists(st.integers(1, 30), max_size=3), min_size=1, max_size=4)


@given(parts=parts)
def test_splitting_changes_no_sum(parts: list[list[int]]) -> None:
    """Every bucket of 100 bytes, whatever lies in it, is 100 bytes; its gradients are those of its views."""
    events = [(A, number, BUCKET) for number in range(1, len(parts) + 1)]
    time = 10 * len(events) + 1
    owners = [bucket(time, address=number) for number in range(1, len(parts) + 1)]
    for number, views in enumerate(parts, start=1):
        owners += [gradient(time, size, f"view {at}", address=number) for at, size in enumerate(views)]
    history = history_of(*owners, events=events)
    end = state_at(history, history.last_moment)
    assert end.requested_bytes == BUCKET * len(parts) == int(np.sum(history.lifetimes.size_bytes))
    assert end.by_category.get("gradient", 0) == sum(map(sum, parts))
    assert end.by_category.get("communication", 0) == BUCKET * len(parts) - sum(map(sum, parts))
