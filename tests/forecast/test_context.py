"""What a process takes of a GPU beside torch's allocator, against what others measured."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from memtrace.forecast.gpus import GPUS, gpu_named
from memtrace.forecast.prediction.doubts import interval_of, on_gpu
from memtrace.schema.cuda_context import USUAL_CONTEXT, context_of
from memtrace.schema.gpu_cards import CARDS
from tests.forecast.predicted_run import DEVICE, MIB, predicted_rank

OTHER_CARDS = {"RTX 4060 Ti": (34, 107), "RTX 3090": (82, 256), "RTX 6000 Ada": (142, 426), "RTX PRO 6000": (188, 555)}
"""Multiprocessors, and MiB of a bare context as the sources in `schema/cuda_context.py` state them."""


def test_published_processes_lie_within_the_range(shared_data: Path) -> None:
    context = gpu_named("t4-16gb").context
    with (shared_data / "published" / "gpu_peaks.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["gpu"] == "T4"]
    beside = [int(row["true_process"]) - int(row["true_reserved"]) for row in rows]
    assert len(beside) > 5
    assert all(context.low_bytes <= one <= context.high_bytes for one in beside)
    assert max(abs(context.predicted_bytes - one) for one in beside) < 6 * MIB


@pytest.mark.parametrize(("multiprocessors", "mib"), OTHER_CARDS.values(), ids=OTHER_CARDS)
def test_bare_contexts_of_other_cards_lie_within_the_range(multiprocessors: int, mib: int) -> None:
    context = context_of(replace(CARDS["l4-24gb"], multiprocessors=multiprocessors))
    assert context.low_bytes <= mib * MIB <= context.high_bytes
    assert mib * MIB <= context.predicted_bytes * 1.01
    assert context.predicted_bytes - mib * MIB < 32 * MIB


def test_every_gpu_has_one_and_an_unnamed_one_is_an_a100() -> None:
    for gpu in GPUS.values():
        context = gpu.context
        assert 0 <= context.low_bytes < context.predicted_bytes < context.high_bytes < gpu.memory_bytes
    assert gpu_named("24GiB").context == USUAL_CONTEXT == GPUS["a100-80gb"].context
    assert GPUS["mi300x-192gb"].context.low_bytes == 0


def test_a_range_is_carried_over_to_another_gpu_with_its_own_context() -> None:
    rank = predicted_rank(60 * MIB)
    a10g, l4 = GPUS["a10g-24gb"], GPUS["l4-24gb"]
    assert on_gpu(interval_of(rank, DEVICE, a10g), l4) == interval_of(rank, DEVICE, l4)
