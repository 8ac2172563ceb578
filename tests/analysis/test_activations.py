"""Activations split by role, module, operation and microbatch; what is kept at the start of each backward."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.device.activations import activations_at, saved_for_backward
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.analysis.results.report import ActivationPart
from tests.analysis.small_trace import event_rows, owner, phase, rank_trace, saved, scope, step, window
from tests.analysis.test_lifetimes import A, C

OTHER = owner(5, 999, 4096, "parameter")


def two_microbatches(**more: Any) -> DeviceHistory:
    """Each forward makes a saved activation in `model.up` and logits in `model`, 10 ns an event."""
    events = [
        (A, 1, 100),  # 10: saved, first microbatch
        (A, 2, 7),  # 20: logits
        (C, 1, 100),  # 30: backward
        (C, 2, 7),  # 40: second forward
        (A, 3, 200),  # 50: saved by an operation
        (A, 4, 30),  # 60: kept by something that nobody saw
        (A, 5, 9),  # 70: logits
        (C, 3, 200),  # 80: backward
        (C, 4, 30),  # 90
    ]
    tables = {
        "events": event_rows(events),
        "windows": [window(0, len(events), initial=0)],
        "steps": [step(0, 0, 6), step(1, 6, 95)],
        "phases": [
            phase("forward", 1, 8, 25),
            phase("backward", 1, 25, 35),
            phase("forward", 1, 36, 75) | {"microbatch": 1},
            phase("backward", 1, 75, 95) | {"microbatch": 1},
            phase("backward", 1, 76, 90) | {"microbatch": 1},
        ],
        "scopes": [scope("model", 8, 25), scope("model.up", 9, 15), scope("model", 36, 75), scope("model.up", 45, 65)],
        "saved": [saved(26, 1, 100), saved(76, 3, 200) | {"microbatch": 1, "op": "MmBackward0"}],
        "owners": [OTHER],
    }
    return build_history(rank_trace(**(tables | more)), "cpu", owns_marks=True)  # type: ignore[arg-type]


def part(name: str | None, num_bytes: int, exact_bytes: int, num_allocations: int) -> ActivationPart:
    return ActivationPart(name=name, num_bytes=num_bytes, exact_bytes=exact_bytes, num_allocations=num_allocations)


def test_activations_at_a_moment_four_ways() -> None:
    found = activations_at(two_microbatches(), 7)
    assert found is not None
    assert found.num_bytes == 239
    assert found.by_role == (part("saved", 230, 200, 2), part("output", 9, 0, 1))
    assert found.by_module == (part("model.up", 230, 200, 2), part("model", 9, 0, 1))
    assert found.by_op == (part("MmBackward0", 200, 200, 1), part(None, 39, 0, 2))
    assert found.by_microbatch == (part("1", 239, 200, 3),)


def test_outputs_of_the_microbatch_before_are_of_that_one() -> None:
    found = activations_at(two_microbatches(), 3)
    assert found is not None
    assert found.by_microbatch == (part("0", 7, 0, 1),)


def test_what_is_kept_when_each_backward_begins() -> None:
    """The backward inside the second one is a part of it."""
    found = saved_for_backward(two_microbatches())
    assert [(one.step, one.microbatch, one.start_ns) for one in found] == [(1, 0, 25), (1, 1, 75)]
    assert [(one.saved_bytes, one.inferred_bytes, one.output_bytes) for one in found] == [(100, 0, 7), (230, 30, 9)]


def test_saved_parameters_and_inputs_are_not_counted() -> None:
    owners = [OTHER, owner(11, 1, 100, "input"), owner(51, 3, 200, "parameter")]
    found = saved_for_backward(two_microbatches(owners=owners))
    assert [one.saved_bytes for one in found] == [0, 30]


def test_nothing_is_told_of_a_trace_without_hooks() -> None:
    bare = two_microbatches(owners=[], saved=[], phases=[])
    assert activations_at(bare, 7) is None
    assert saved_for_backward(bare) == ()


@pytest.mark.parametrize("moment", range(10))
def test_every_split_adds_up(moment: int) -> None:
    history = two_microbatches()
    found = activations_at(history, moment)
    assert found is not None
    for split in (found.by_role, found.by_module, found.by_op, found.by_microbatch):
        assert sum(one.num_bytes for one in split) == found.num_bytes
        assert [one.num_bytes for one in split] == sorted((one.num_bytes for one in split), reverse=True)


sizes = st.lists(st.integers(1, 1000), min_size=1, max_size=6)


@given(sizes=sizes, saved_flags=st.data())
def test_saved_bytes_are_those_of_the_distinct_storages(sizes: list[int], saved_flags: st.DataObject) -> None:
    """Every storage that the walk names once or more is counted once."""
    events = [(A, number, size) for number, size in enumerate(sizes, start=1)]
    end = 10 * len(sizes) + 5
    walked = saved_flags.draw(st.lists(st.sampled_from(range(1, len(sizes) + 1))))
    history = two_microbatches(
        events=event_rows(events),
        windows=[window(0, len(events), initial=0)],
        phases=[phase("forward", 1, 8, end), phase("backward", 1, end, end + 100)],
        saved=[saved(end, number, sizes[number - 1]) for number in walked],
    )
    (found,) = saved_for_backward(history)
    assert found.saved_bytes == sum(sizes[number - 1] for number in set(walked))
    assert found.saved_bytes + found.output_bytes == sum(sizes)
