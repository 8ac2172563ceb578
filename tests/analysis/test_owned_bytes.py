"""What owners hold at step ends: whole storages, and the tensors in them."""

from __future__ import annotations

from typing import Any

from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.device.owned_bytes import owned_at_step_ends
from tests.analysis.small_trace import event_rows, owner, rank_trace, step, window
from tests.analysis.test_lifetimes import A


def row(time: int, address: int, size: int, category: str, *, tensor_bytes: int | None = None) -> dict[str, Any]:
    """Return a row of owners, in the step that ends at 40 or 80."""
    more = {"tensor_bytes": size if tensor_bytes is None else tensor_bytes}
    return owner(time, address, size, category) | more | {"step": 1 if time <= 60 else 2}


def ends(*owners: dict[str, Any]) -> dict[int, dict[str, tuple[int, int]]]:
    """Return by step and category the bytes of storages and tensors."""
    rank = rank_trace(
        events=event_rows([(A, 1, 100), (A, 2, 60), (A, 3, 60)]),
        windows=[window(0, 3, initial=0)],
        steps=[step(0, 0, 5), step(1, 5, 40), step(2, 40, 80)],
        owners=owners,
    )
    found = owned_at_step_ends(build_history(rank, "cpu", owns_marks=True))
    return {
        number: {one.category: (one.storage_bytes, one.tensor_bytes) for one in owned}
        for number, owned in found.items()
    }


def test_padding_is_the_difference() -> None:
    assert ends(row(41, 1, 100, "parameter", tensor_bytes=90), row(41, 2, 60, "gradient")) == {
        1: {"parameter": (100, 90), "gradient": (60, 60)}
    }


def test_each_step_has_its_own() -> None:
    assert ends(row(41, 1, 100, "parameter"), row(81, 1, 100, "parameter"), row(81, 3, 60, "optimizer_state")) == {
        1: {"parameter": (100, 100)},
        2: {"parameter": (100, 100), "optimizer_state": (60, 60)},
    }


def test_only_the_look_at_the_end_of_a_step_counts() -> None:
    """A gradient seen in backward and an input are gone by then."""
    assert ends(row(35, 2, 60, "gradient"), row(35, 3, 60, "input"), row(41, 1, 100, "parameter")) == {
        1: {"parameter": (100, 100)}
    }


def test_views_of_one_storage_count_it_once() -> None:
    views = [row(41, 1, 100, "gradient", tensor_bytes=30), row(41, 1, 100, "gradient", tensor_bytes=50)]
    assert ends(*views) == {1: {"gradient": (100, 80)}}
    assert ends(*views, *views) == {1: {"gradient": (100, 100)}}
    assert ends(*views, row(41, 1, 100, "communication")) == {1: {"gradient": (80, 80)}}


def test_what_no_allocation_holds_is_left_out() -> None:
    assert ends(row(41, 7, 100, "parameter"), row(41, 2, 60, "buffer")) == {1: {"buffer": (60, 60)}}
