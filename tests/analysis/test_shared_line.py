"""What many lines made has the line that they share, or in a loop the one that made most, whoever calls that loop."""

from __future__ import annotations

from typing import Any

import pytest

from memtrace.analysis.device.shared_line import shared_line
from tests.analysis.small_trace import rank_trace

FORWARD = ("torch/nn/modules/module.py:1778 _wrapped_call_impl",)
LAUNCHERS = {
    "the interpreter": (),
    "runpy": ("/usr/lib/python3.12/runpy.py:88 _run_code", "start.py:3 <module>"),
    "a trainer": (
        "/env/site-packages/lightning/pytorch/strategies/strategy.py:390 training_step",
        "start.py:3 <module>",
    ),
    "an optimizer": ("torch/optim/optimizer.py:526 wrapper", "start.py:3 <module>"),
}


def line_of(*stacks: tuple[int, tuple[str, ...]]) -> int | None:
    """Return the line that is named for stacks, innermost frame first, each with its bytes."""
    frames: list[dict[str, Any]] = []
    rows: list[dict[str, int | None]] = []
    given = []
    for num_bytes, texts in stacks:
        parent = None
        for text in reversed(texts):
            place, function = text.split(" ")
            file, line = place.rsplit(":", 1)
            frames.append({"file": file, "line": int(line), "function": function})
            rows.append({"parent": parent, "frame": len(frames) - 1})
            parent = len(rows) - 1
        given.append((len(rows) - 1, num_bytes))
    found = shared_line(rank_trace(frames=frames, stacks=rows), given)
    return None if found is None else int(found["line"])


@pytest.mark.parametrize("around", LAUNCHERS.values(), ids=LAUNCHERS)
def test_in_a_loop_it_is_the_line_that_made_most(around: tuple[str, ...]) -> None:
    model, loss = ("train.py:8 train", *around), ("train.py:9 train", *around)
    assert line_of((300, model), (200, loss)) == 8
    assert line_of((200, model), (300, loss)) == 9


@pytest.mark.parametrize("around", LAUNCHERS.values(), ids=LAUNCHERS)
def test_of_a_model_it_is_the_line_that_called_it(around: tuple[str, ...]) -> None:
    call = (*FORWARD, "train.py:8 train", *around)
    assert line_of((300, ("net.py:20 forward", *call)), (200, ("net.py:21 forward", *call))) == 8
    assert line_of((300, ("net.py:20 forward", *call)), (10, ("net.py:21 forward", *call))) == 20
