"""Which GPU of its machine a predicted process uses: one alone, whichever the program takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from memtrace.hooks.fake.events.gpu_number import GpuNumber


@pytest.mark.parametrize("device", [2, "cuda:2", "2"], ids=repr)
def test_the_chosen_one_is_used_and_put_back(device: Any) -> None:
    gpu = GpuNumber(4)
    expected = 0 if device == "2" else 2
    assert gpu.choose(device) == 0, "a name without a number leaves it"
    assert (gpu.current, gpu.name) == (expected, f"cuda:{expected}")
    assert gpu.choose(-1) == gpu.choose(None) == expected


@pytest.mark.parametrize(
    ("steps", "in_use", "refused"),
    [
        (("use None", "use 0", "use None"), 0, [None, None, None]),
        (("choose 3", "use None", "use 3"), 3, [None, None]),
        (("use 1", "use None"), 1, [None, 1]),
        (("choose 2", "choose 0", "use 2", "use 0"), 2, [None, 2]),
    ],
)
def test_a_second_one_is_told_apart(steps: Sequence[str], in_use: int, refused: list[int | None]) -> None:
    gpu = GpuNumber(4)
    found = []
    for step in steps:
        verb, _, number = step.partition(" ")
        if verb == "choose":
            gpu.choose(int(number))
        else:
            found.append(gpu.use(None if number == "None" else int(number)))
    assert (gpu.number, found) == (in_use, refused)


def test_one_that_is_not_there_is_an_invalid_ordinal() -> None:
    gpu = GpuNumber(2)
    for ask in (gpu.choose, gpu.use):
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            ask(2)
    assert gpu.number == 0
