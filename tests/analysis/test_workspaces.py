"""Workspaces of cuBLAS that were made before the history, or seen without hooks, are told by their size."""

from __future__ import annotations

import numpy as np
import pytest

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import build_history
from memtrace.schema.names import Category
from memtrace.schema.workspaces import SMALL_CUBLAS_BYTES
from tests.analysis.small_trace import event_rows, initial_block, phase, rank_trace, step, window

FEW = 1000


def category(
    device: str, *, size: int = SMALL_CUBLAS_BYTES, frees: bool = False, gap: bool = False, count: int = 1
) -> Category:
    """Return the category of a block of a size that was there before, one of so many, and is freed or not, or that a
    gap follows."""
    first = [("alloc", 1, FEW), ("free_completed", 1, FEW), *([("free_completed", 9, size)] if frees else [])]
    events = event_rows([*first, ("alloc", 2, FEW), ("free_completed", 2, FEW)], device=device)
    windows = [window(0, len(events))]
    blocks = [initial_block(9 + size * number, size, device=device) for number in range(count)]
    if gap:
        windows = [window(0, len(first)), window(len(first), len(events) - len(first))]
        blocks.append(initial_block(9, size, window=1, device=device))
    rank = rank_trace(
        events=events,
        windows=windows,
        initial_blocks=blocks,
        steps=[step(1, 0, 90)],
        phases=[phase("forward", 1, 5, 25), phase("backward", 1, 25, 85)],
    )
    history = build_history(rank, device, owns_marks=True)
    (row, *_) = np.flatnonzero(history.lifetimes.address == 9)
    return CATEGORIES[int(history.attribution.category[row])]


@pytest.mark.parametrize("gap", [False, True])
def test_what_has_the_size_of_a_workspace_and_stays_is_one(gap: bool) -> None:
    assert category("cuda:0", gap=gap) is Category.WORKSPACE


def test_what_is_freed_has_another_size_or_is_on_the_cpu_is_not() -> None:
    assert category("cuda:0", frees=True) is Category.UNKNOWN
    assert category("cuda:0", size=SMALL_CUBLAS_BYTES - 512) is Category.UNKNOWN
    assert category("cpu") is Category.UNKNOWN


def test_two_are_no_parameter_with_its_gradient_but_as_many_as_layers_may_be_weights() -> None:
    assert category("cuda:0", count=2) is Category.WORKSPACE
    assert category("cuda:0", count=12) is Category.UNKNOWN
