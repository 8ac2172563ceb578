"""How far a prediction on torch's own CUDA code may be off, and for which reasons.

In: the run, with what was noted while it ran. Out: `Interval`. What torch asked for and reserved is exact; what it does
not decide is not: scratch of NVIDIA's libraries, sizes that hang on data, the context. The widths are those that the
published measurements of `benchmarks/published.py` showed.
"""

from __future__ import annotations

from collections.abc import Iterator

from memtrace.forecast.gpus import Gpu
from memtrace.forecast.prediction.doubts import (
    CONVOLUTIONS_PERMILLE,
    context_range,
    device_range,
    lasting_bytes,
    noted_doubts,
    outside_doubts,
    tries_algorithms,
)
from memtrace.forecast.prediction.results import Doubt, Interval, Range
from memtrace.store.trace import RankTrace
from memtrace.units import format_bytes

_CONVOLUTION = "Convolution"
_LESS_PERMILLE = (10, 60)
"""Of allocated and of reserved bytes: how much less others measured than this engine says, at most, rounded up."""
_MORE_PERMILLE = (10, 115)
"""How much more, of runs without convolutions. What is allocated differs by workspaces that versions of torch keep or
give back; what is reserved hangs on which of equal blocks is taken, and on the versions of all libraries, as well."""


def driverless_interval(rank: RankTrace, device: str, gpu: Gpu, allocated: int, reserved: int) -> Interval:
    """Return how far the largest allocated and reserved bytes of a run may be off on a GPU."""
    doubts = [*_measured(rank, reserved), *noted_doubts(rank, max(allocated - lasting_bytes(rank, device), 0))]
    doubts += outside_doubts(rank, gpu)
    least = (
        min(allocated, lasting_bytes(rank, device)) if any(one.slug == "predicted-bound" for one in doubts) else None
    )
    more = CONVOLUTIONS_PERMILLE if has_convolutions(rank) else _MORE_PERMILLE
    trials = _trial_bytes(rank)
    ranges = [
        _range(found, less_permille, more_permille, least, trials)
        for found, less_permille, more_permille in zip((allocated, reserved), _LESS_PERMILLE, more, strict=True)
    ]
    context = context_range(doubts, gpu)
    return Interval(
        allocated=ranges[0],
        reserved=ranges[1],
        context=context,
        device=device_range(ranges[1], context),
        doubts=tuple(doubts),
    )


def has_convolutions(rank: RankTrace) -> bool:
    """Return whether a convolution ran, or autograd kept anything for one."""
    return bool(rank.header.get("convolutions")) or any(
        text.startswith(_CONVOLUTION) and text.endswith("Backward0") for text in rank.strings
    )


def _trial_bytes(rank: RankTrace) -> int:
    """Return what trials of algorithms take at most: the unfolded input of the largest convolution, one at a time."""
    return int(rank.header.get("largest_unfolded_bytes") or 0) if tries_algorithms(rank) else 0


def _range(found: int, less_permille: int, more_permille: int, least: int | None, trials: int) -> Range:
    low = found - found * less_permille // 1000
    return Range(
        low_bytes=low if least is None else min(low, least),
        predicted_bytes=found,
        high_bytes=found + max(found * more_permille // 1000, trials),
    )


def _measured(rank: RankTrace, reserved: int) -> Iterator[Doubt]:
    yield Doubt(
        slug="predicted-measured",
        message=f"others measured up to {_MORE_PERMILLE[0] / 10:g} % more or less allocated than this engine says, and "
        f"reserved from {_LESS_PERMILLE[1] / 10:g} % less to {_MORE_PERMILLE[1] / 10:g} % more",
        less_bytes=reserved * _LESS_PERMILLE[1] // 1000,
        more_bytes=reserved * _MORE_PERMILLE[1] // 1000,
    )
    if has_convolutions(rank):
        yield Doubt(
            slug="predicted-convolutions",
            message="what cuDNN's convolutions take is not foreseen; allowed for is " + _allowed_for(rank),
            less_bytes=0,
            more_bytes=max(reserved * CONVOLUTIONS_PERMILLE[1] // 1000, _trial_bytes(rank)),
        )


def _allowed_for(rank: RankTrace) -> str:
    """Return what the range allows for, and the bound that the shapes of the largest convolution set."""
    unfolded = rank.header.get("largest_unfolded_bytes")
    largest = f" (the unfolded input of the largest is {format_bytes(unfolded)})" if unfolded else ""
    if tries_algorithms(rank):
        return f"one trial of the plainest algorithm (cudnn.benchmark){largest}"
    return f"what measured runs showed{largest}"
