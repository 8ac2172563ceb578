"""What a device's backward makes has no stack: the line that called the backward stands for it."""

from __future__ import annotations

import numpy as np
import pytest

from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.analysis.device.program_lines import place_of
from tests.analysis.small_trace import Event, event_rows, phase, rank_trace, step, window

FRAMES = [
    {"file": "train.py", "line": 7, "function": "train"},
    {"file": "torch/autograd/__init__.py", "line": 233, "function": "_make_grads"},
    {"file": "train.py", "line": 3, "function": "forward"},
]
CALL, FORWARD = 1, 2
"""Stacks: the gradient of the loss under line 7, and the forward at line 3."""
EVENTS: list[tuple[Event, int | None]] = [
    (("alloc", 1, 1000), FORWARD),
    (("alloc", 2, 4), CALL),
    (("alloc", 3, 1000), None),
    (("alloc", 4, 2000), None),
]
"""An activation at 10 ns; the gradient of the loss, one of a parameter, and what is made after the backward."""


@pytest.fixture
def history() -> DeviceHistory:
    rows = event_rows([event for event, _ in EVENTS], device="cuda:0")
    events = [{**row, "stack": stack} for row, (_, stack) in zip(rows, EVENTS, strict=True)]
    rank = rank_trace(
        events=events,
        windows=[window(0, len(events))],
        steps=[step(1, 0, 50)],
        phases=[phase("forward", 1, 5, 15), phase("backward", 1, 15, 35), phase("optimizer", 1, 35, 45)],
        frames=FRAMES,
        stacks=[{"frame": 0, "parent": None}, {"frame": 1, "parent": 0}, {"frame": 2, "parent": None}],
    )
    return build_history(rank, "cuda:0", owns_marks=True)


def line_of(history: DeviceHistory, *addresses: int) -> int | None:
    place = place_of(history, np.flatnonzero(np.isin(history.lifetimes.address, addresses)))
    return None if place is None else place["line"]


def test_what_a_backward_makes_is_at_the_line_that_called_it(history: DeviceHistory) -> None:
    assert line_of(history, 3) == FRAMES[0]["line"]


def test_what_has_a_stack_keeps_its_line(history: DeviceHistory) -> None:
    assert line_of(history, 1) == FRAMES[2]["line"]
    assert line_of(history, 1, 3) == FRAMES[2]["line"]


def test_what_is_made_elsewhere_has_no_line(history: DeviceHistory) -> None:
    assert line_of(history, 4) is None
