"""Workspaces of cuBLAS that were made before the history, or seen without hooks, are told by their size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.device_history import build_history
from memtrace.schema.gpu_cards import CARDS
from memtrace.schema.names import Category
from memtrace.schema.workspaces import LARGE_CUBLAS_BYTES, ROCM_BLAS_BYTES, SMALL_CUBLAS_BYTES
from tests.analysis.small_trace import event_rows, initial_block, phase, rank_trace, step, window

FEW = 1000


def category(
    device: str,
    *,
    size: int = SMALL_CUBLAS_BYTES,
    frees: bool = False,
    gap: bool = False,
    count: int = 1,
    header: dict[str, Any] | None = None,
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
        header=header,
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


def on(card: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a header of a run on a GPU of the data sheets."""
    devices = [{"name": "cuda:0", "kind": CARDS[card].name, "capacity_bytes": None}]
    return {"devices": devices, "environment": environment or {}}


@pytest.mark.parametrize(
    ("card", "size"),
    [
        ("a100-40gb", SMALL_CUBLAS_BYTES),
        ("h100-80gb", LARGE_CUBLAS_BYTES),
        ("b200-192gb", LARGE_CUBLAS_BYTES),
        ("rtx5090-32gb", LARGE_CUBLAS_BYTES),
        ("mi300x-192gb", ROCM_BLAS_BYTES),
    ],
)
def test_the_size_is_that_of_the_gpu(card: str, size: int) -> None:
    others = {SMALL_CUBLAS_BYTES, LARGE_CUBLAS_BYTES, ROCM_BLAS_BYTES} - {size}
    assert category("cuda:0", size=size, count=2, header=on(card)) is Category.WORKSPACE
    assert [category("cuda:0", size=one, header=on(card)) for one in others] == [Category.UNKNOWN] * 2


def test_the_size_is_that_which_the_environment_names() -> None:
    asked = on("a100-40gb", {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
    assert category("cuda:0", size=8 * 4096 * 1024, header=asked) is Category.WORKSPACE
    assert category("cuda:0", size=SMALL_CUBLAS_BYTES, header=asked) is Category.UNKNOWN


@pytest.mark.parametrize("config", [":", ":4096", ":x:y", f":{'9' * 5000}:1", ":999999999:999999999"])
def test_what_no_setting_says_decides_nothing(config: str) -> None:
    header = on("h100-80gb", {"CUBLAS_WORKSPACE_CONFIG": config})
    assert category("cuda:0", size=FEW * 1000, header=header) is Category.UNKNOWN


def test_of_three_blocks_of_a_round_size_none_is_told_by_it() -> None:
    header = on("h100-80gb")
    found = [category("cuda:0", size=LARGE_CUBLAS_BYTES, count=count, header=header) for count in (1, 2, 3)]
    assert [one is Category.WORKSPACE for one in found] == [True, True, False]
