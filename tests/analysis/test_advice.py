"""Advice by hand: peaks, shards and 8-bit states whose bytes the tests derive themselves."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.advice.case import Case
from memtrace.analysis.advice.find import failing, find_advice, in_order
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.analysis.results.report import Finding
from tests.analysis.small_trace import event_rows, owner, phase, rank_trace, saved, step, window

MIB = 1 << 20


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 1000)), min_size=1, max_size=40), st.lists(st.floats(0, 1)))
def test_peak_without_is_that_of_a_run_that_asks_for_less(choices: list[tuple[int, int]], shares: list[float]) -> None:
    """Replay the same allocs and frees with smaller sizes, one by one."""
    live: dict[int, int] = {}
    events: list[tuple[str, int | None, int]] = []
    sizes: list[int] = []
    numbers: dict[int, int] = {}
    totals: list[list[tuple[int, int]]] = [[]]
    for address, size in choices:
        if address in live:
            events.append(("free_completed", address, live.pop(address)))
        else:
            live[address], numbers[address] = size, len(sizes)
            events.append(("alloc", address, size))
            sizes.append(size)
        totals.append([(numbers[one], live[one]) for one in live])
    history = history_of(events)
    less = [int(size * share) for size, share in zip(sizes, [*shares, *[0.5] * len(sizes)], strict=False)]
    expected = max(sum(size - less[number] for number, size in moment) for moment in totals)
    # Rows are ordered by address; their starts tell which alloc each is.
    of_row = np.argsort(np.argsort(history.lifetimes.start))
    case, saved_bytes = Case(history), np.array(less, np.int64)[of_row]
    assert case.level_without(case.cut(np.arange(len(saved_bytes)), saved_bytes)).max() == expected


def history_of(events: list[tuple[str, int | None, int]], **tables: Any) -> DeviceHistory:
    rank = rank_trace(events=event_rows(events), windows=[window(0, len(events), initial=0)], **tables)
    return build_history(rank, "cpu", owns_marks=True)


def training(
    *, world_size: int | None = None, elements: int = MIB, state: str = "float32", groups_of: int = 1
) -> DeviceHistory:
    """Two layers of `elements` float32 parameters each, with gradients, and one state as large as each.

    The parameter group counts the elements of `groups_of` ranks.
    """
    kinds = ("parameter", "gradient", "optimizer_state")
    events: list[tuple[str, int | None, int]] = []
    owners = []
    for number, kind in enumerate(kinds):
        for layer in range(2):
            address = 1 + 2 * number + layer
            events.append(("alloc", address, 4 * elements))
            owners.append(owner(1000, address, 4 * elements, kind) | {"name": f"layers.{layer}.weight", "dtype": state})
            owners[-1] |= {"shape": str(elements)}
    group = {
        "class_name": "SGD",
        "group": 0,
        "num_parameters": 2 * elements * groups_of,
        "options": json.dumps({"foreach": False}),
    }
    rank = rank_trace(
        events=event_rows(events),
        windows=[window(0, len(events), initial=0)],
        owners=owners,
        optimizers=[group],
        steps=[step(1, 0, 900)],
        phases=[phase("forward", 1, 1, 2), phase("backward", 1, 2, 3), phase("optimizer", 1, 900, 901)],
        header={"world_size": world_size, "rank": 0},
    )
    return build_history(rank, "cpu", owns_marks=True)


def advice(history: DeviceHistory) -> dict[str, Finding]:
    return {finding.slug: finding for finding in find_advice(history)}


def test_zero_divides_states_then_gradients_then_parameters_by_the_ranks_of_the_run() -> None:
    found = advice(training(world_size=4))["state-on-every-rank"]
    kind = 2 * 4 * MIB
    assert Case(training()).peak_bytes == 3 * kind
    assert found.evidence["zero_1_new_peak_bytes"] == 2 * kind + kind // 4
    assert found.evidence["zero_2_new_peak_bytes"] == kind + 2 * kind // 4
    # The layer that runs and the next one are gathered: here, that is the whole model.
    assert found.evidence["zero_3_new_peak_bytes"] == 3 * kind // 4 + kind
    assert found.new_peak_bytes == found.evidence["zero_1_new_peak_bytes"]
    assert found.where is None or found.where["line"] is None


@pytest.mark.parametrize("world_size", [None, 1])
def test_one_rank_has_nobody_to_share_with(world_size: int | None) -> None:
    assert "state-on-every-rank" not in advice(training(world_size=world_size))


def test_ranks_that_hold_shards_already_are_not_told_to_shard() -> None:
    assert "state-on-every-rank" not in advice(training(world_size=4, groups_of=4))


def test_8_bit_states_take_a_byte_an_element_and_a_scale_a_block() -> None:
    found = advice(training())["optimizer-state-in-float"]
    kind = 2 * 4 * MIB
    assert found.new_peak_bytes == 2 * kind + 2 * (MIB + MIB // 256 * 4)


@pytest.mark.parametrize("changes", [{"elements": 4095}, {"state": "bfloat16"}])
def test_states_that_would_not_shrink_get_no_advice(changes: dict[str, Any]) -> None:
    assert "optimizer-state-in-float" not in advice(training(**changes))


def test_a_history_without_anything_gets_no_advice() -> None:
    assert find_advice(history_of([])) == ()
    assert find_advice(history_of([("alloc", 1, 0), ("free_completed", 1, 0)])) == ()


@pytest.mark.parametrize("shape", ["0x0", "9" * 5000, "x".join(["99999999"] * 9), "", None, "8x", "-1x4"])
def test_odd_shapes_and_headers_break_nothing(shape: str | None) -> None:
    sizes = {1: 64, 2: 256, 3: 32}
    kinds = {1: "parameter", 3: "input"}
    events = [("alloc", address, size) for address, size in sizes.items()]
    owners = [owner(15, at, sizes[at], kind) | {"shape": shape} for at, kind in kinds.items()]
    kept = [saved(25, 2, 256) | {"op": op, "shape": shape} for op in ("LogSoftmaxBackward0", "AddmmBackward0")]
    phases = [phase("forward", 1, 1, 25), phase("backward", 1, 25, 29)]
    steps = [step(1, 0, 30)]
    header = {"world_size": -3}
    find_advice(history_of(events, owners=owners, saved=kept, phases=phases, steps=steps, header=header))


def finding(slug: str, severity: str, saves: int | None) -> Finding:
    return Finding(
        slug=slug,
        severity=severity,
        title="",
        evidence={},
        change="",
        cost="",
        saves_bytes=saves,
        saves_ns=None,
        new_peak_bytes=None,
        rank=None,
        where=None,
    )


def test_what_is_wrong_comes_before_what_could_be_traded_and_large_savings_before_small() -> None:
    trade, waste, small, end = (
        finding("trade", "info", 9),
        finding("waste", "warning", 2),
        finding("small", "warning", 1),
        finding("end", "error", None),
    )
    assert in_order([trade, small, waste, end]) == (end, waste, small, trade)
    assert failing([trade, waste, end], ["error"]) == (end,)
    assert failing([trade, waste, end], ["warning"]) == (waste, end)
    assert failing([trade, waste, end], ["trade"]) == (trade,)
    assert failing([trade, waste, end], []) == ()
