"""How far a prediction may be off, and for which reasons.

In: a predicted rank as the program left it, with what was noted while it ran. Out: `Interval`. The range is that of two
more passes of the same requests through the allocator's model: without those that follow a rule and no operator of
torch, and with them twice as large together with what kernels may take besides. What cannot be said in bytes is a doubt
all the same, and not in the range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from memtrace.forecast.gpus import Gpu
from memtrace.forecast.memory.sharding import NCCL_BYTES
from memtrace.forecast.prediction.placed import Weights, peaks
from memtrace.forecast.prediction.results import Doubt, Interval, Range
from memtrace.schema.names import Category
from memtrace.schema.predicted import FIRST_ALLOWANCE_ADDRESS, FIRST_RULE_ADDRESS
from memtrace.store.trace import RankTrace

_LASTING = (Category.PARAMETER, Category.BUFFER, Category.GRADIENT, Category.OPTIMIZER_STATE)
_LESS_THAN_SAID = {
    "predicted-bound": "how much some operators find is in the data alone, and the most was assumed",
    "predicted-eager": "the program compiles its model, and ran uncompiled: fusion keeps fewer activations",
}
"""By slug of a note: why the run may need as little as what lasts from step to step."""
_NOT_IN_BYTES = {
    "predicted-values": "values of the GPU were made up: a branch or size that hangs on one may come out differently",
    "predicted-graphs": "what CUDA graphs keep in pools of their own is not counted",
    "predicted-operator": "operators that do not say what they make were taken to make nothing",
}
_TRIES = "it tries algorithms (cudnn.benchmark), and allowed for is the unfolded input of each"
_MEASURED_SCRATCH = "it chooses by rule, and allowed for is the unfolded input of each, up to what measured runs showed"
_CONTEXT = "predicted-context"
_MOST_COMMUNICATORS = 2
_MARGIN_PERMILLE = (50, 80)
"""Least distance of the ends from allocated and from reserved bytes. Chosen, and no measurement: what a prediction is
to keep in the worst case, which none has been held against on a GPU yet."""


CONVOLUTIONS_PERMILLE = (50, 150)
"""How much more is allocated and reserved for the scratch of convolutions, at most: more than published rows showed."""


def interval_of(rank: RankTrace, device: str, gpu: Gpu) -> Interval:
    """Return how far the prediction of a run may be off on a GPU."""
    lasting = lasting_bytes(rank, device)
    plain = peaks(rank, device, Weights())
    without = peaks(rank, device, Weights(rules=0))
    doubled = peaks(rank, device, Weights(rules=2))
    unfolded = peaks(rank, device, Weights(rules=2, allowances=1))
    most = unfolded if tries_algorithms(rank) else _as_measured(plain, doubled, unfolded)
    doubts = [*_kernel_doubts(rank, plain[0], without[0], doubled[0], most[0])]
    doubts += noted_doubts(rank, max(plain[0] - lasting, 0))
    doubts += [_unmeasured(plain[1]), *outside_doubts(rank, gpu)]
    may_be_far_less = any(one.slug in _LESS_THAN_SAID for one in doubts)
    allocated, reserved = (
        _range(found, margin, lasting if may_be_far_less else None)
        for found, margin in zip(zip(plain, without, doubled, most, strict=True), _MARGIN_PERMILLE, strict=True)
    )
    context = context_range(doubts, gpu)
    return Interval(
        allocated=allocated,
        reserved=reserved,
        context=context,
        device=device_range(reserved, context),
        doubts=tuple(doubts),
    )


def tries_algorithms(rank: RankTrace) -> bool:
    """Return whether cuDNN tries the algorithms of each convolution, each with the scratch that it needs."""
    return bool(rank.header.get("cudnn_benchmark"))


def _as_measured(plain: tuple[int, int], doubled: tuple[int, int], unfolded: tuple[int, int]) -> tuple[int, int]:
    """Return the most that convolutions take where cuDNN chooses by rule: no more than measured runs showed."""
    allocated, reserved = (
        max(least, min(most, one + one * permille // 1000))
        for one, least, most, permille in zip(plain, doubled, unfolded, CONVOLUTIONS_PERMILLE, strict=True)
    )
    return allocated, reserved


def context_range(doubts: Iterable[Doubt], gpu: Gpu) -> Range:
    """Return what a process holds of a GPU beside torch's allocator."""
    beside = sum(one.more_bytes or 0 for one in doubts if one.slug == "predicted-ranks")
    context = gpu.context
    return Range(
        low_bytes=context.low_bytes,
        predicted_bytes=context.predicted_bytes,
        high_bytes=context.high_bytes + beside,
    )


def on_gpu(interval: Interval, gpu: Gpu) -> Interval:
    """Return the range of a run on another GPU of the same compute capability, whose context is its own."""
    doubts = tuple(_context_doubt(gpu) if one.slug == _CONTEXT else one for one in interval.doubts)
    context, reserved = context_range(doubts, gpu), interval.reserved
    return replace(interval, context=context, device=device_range(reserved, context), doubts=doubts)


def made_room(interval: Interval, reserved_bytes: int) -> Interval:
    """Return the range of a run that reserves no more than this, since cached memory is given back where there is none.

    At most it reserves what it would on a device without end: another order of blocks may leave more room.
    """
    whole = interval.reserved
    reserved = replace(whole, low_bytes=min(whole.low_bytes, reserved_bytes), predicted_bytes=reserved_bytes)
    return replace(interval, reserved=reserved, device=device_range(reserved, interval.context))


def device_range(reserved: Range, context: Range) -> Range:
    """Return what a GPU must have: what is reserved and the context."""
    return Range(
        low_bytes=reserved.low_bytes + context.low_bytes,
        predicted_bytes=reserved.predicted_bytes + context.predicted_bytes,
        high_bytes=reserved.high_bytes + context.high_bytes,
    )


def _range(found: tuple[int, ...], margin_permille: int, floor: int | None) -> Range:
    """Return the range of one quantity; `found` begins with the prediction, `floor` is the least that is possible."""
    predicted = found[0]
    margin = predicted * margin_permille // 1000
    low = min(*found, predicted - margin)
    return Range(
        low_bytes=low if floor is None else min(low, floor),
        predicted_bytes=predicted,
        high_bytes=max(*found, predicted + margin),
    )


def _kernel_doubts(rank: RankTrace, plain: int, without: int, doubled: int, most: int) -> Iterator[Doubt]:
    addresses = rank.table("events")["address"]
    if bool(np.any((addresses >= FIRST_RULE_ADDRESS) & (addresses < FIRST_ALLOWANCE_ADDRESS))):
        yield Doubt(
            slug="predicted-rules",
            message="workspaces and temporaries of kernels follow rules that no GPU has checked; the range goes from "
            "none of them to twice as much",
            less_bytes=max(plain - without, 0),
            more_bytes=max(doubled - plain, 0),
        )
    if bool(np.any(addresses >= FIRST_ALLOWANCE_ADDRESS)):
        yield Doubt(
            slug="predicted-convolutions",
            message="what cuDNN's convolutions take is not foreseen; "
            + (_TRIES if tries_algorithms(rank) else _MEASURED_SCRATCH),
            less_bytes=0,
            more_bytes=max(most - doubled, 0),
        )


def noted_doubts(rank: RankTrace, passing_bytes: int) -> Iterator[Doubt]:
    """Yield doubts about what was noted while the program ran; at the peak, so much of it does not last."""
    noted = {one.slug for one in rank.warnings}
    for slug, message in _LESS_THAN_SAID.items():
        if slug in noted:
            yield Doubt(slug=slug, message=message, less_bytes=passing_bytes, more_bytes=0)
    for slug, message in _NOT_IN_BYTES.items():
        if slug in noted:
            yield Doubt(slug=slug, message=message, less_bytes=None, more_bytes=None)


def _unmeasured(reserved_bytes: int) -> Doubt:
    allocated, reserved = (f"{one / 10:g} %" for one in _MARGIN_PERMILLE)
    margin = reserved_bytes * _MARGIN_PERMILLE[1] // 1000
    return Doubt(
        slug="predicted-unmeasured",
        message="few of the rules for kernels were held against a GPU: to either side the range is at least "
        f"{allocated} of what is allocated and {reserved} of what is reserved, more than published peaks were off",
        less_bytes=margin,
        more_bytes=margin,
    )


def outside_doubts(rank: RankTrace, gpu: Gpu) -> Iterator[Doubt]:
    """Yield doubts about what is not torch's own."""
    yield _context_doubt(gpu)
    if (rank.header.get("world_size") or 1) > 1:
        yield Doubt(
            slug="predicted-ranks",
            message=f"communication buffers beside torch are not counted; allowed for are {_MOST_COMMUNICATORS} "
            "communicators",
            less_bytes=0,
            more_bytes=_MOST_COMMUNICATORS * NCCL_BYTES,
        )
    if gpu.is_amd:
        yield Doubt(
            slug="predicted-amd",
            message="kernels and workspaces are those of CUDA: what ROCm chooses is not foreseen",
            less_bytes=None,
            more_bytes=None,
        )


def _context_doubt(gpu: Gpu) -> Doubt:
    context = gpu.context
    return Doubt(
        slug=_CONTEXT,
        message=f"what the context and loaded kernels take is not measured on this GPU: {context.source}",
        less_bytes=context.predicted_bytes - context.low_bytes,
        more_bytes=context.high_bytes - context.predicted_bytes,
    )


def lasting_bytes(rank: RankTrace, device: str) -> int:
    """Return what parameters, buffers, gradients and optimizer states hold at the end of the last step that ended."""
    owners, steps = rank.table("owners"), rank.table("steps")
    ended = steps["step"][(steps["step"] > 0) & ~steps.is_null("end_ns")]
    categories = [rank.string_id(one.value) for one in _LASTING]
    chosen = np.isin(owners["category"], categories) & (owners["device"] == rank.string_id(device))
    chosen &= owners["step"] == (int(ended.max()) if len(ended) else 0)
    _, first = np.unique(owners["address"][chosen], return_index=True)
    return int(owners["tensor_bytes"][chosen][first].sum())
