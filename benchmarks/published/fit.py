"""Fits the few numbers of a framework's `Speed` to published runs, and answers for runs with any `Speed`.

In: published runs as given layouts. Out: throughputs; a fitted `Speed`. The loss is the mean of |log(predicted /
published)|, cut off so that broken runs weigh no more than bad ones, and a little for each number that leaves where it
began, since few groups cannot tell some numbers apart. The fit follows the slopes of all numbers at once (Levenberg and
Marquardt's way, with weights that make squares of absolute values): one number at a time it stops in corners.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.published.rows import PublishedRun
from memtrace.forecast.evaluation.columns import read_cells
from memtrace.forecast.evaluation.evaluate import alike, together
from memtrace.forecast.evaluation.layouts import GivenLayout, given_layout
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.step_time.speed import SPEEDS, Speed
from memtrace.forecast.step_time.step import step_time

SHARES = (
    "compute_share",
    "attention_share",
    "scores_share",
    "bandwidth_share",
    "overlap",
    "unaligned_share",
    "share_8bit",
    "later_share",
)
"""Numbers that cannot be more than 1."""
FITTED = {
    "fsdp": ("compute_share", "half_tokens", "half_width", "layer_bytes", "attention_share", "overlap"),
    "deepspeed": ("compute_share", "half_tokens", "half_width", "scores_share", "unaligned_share", "overlap"),
    "megatron": ("compute_share", "later_share", "half_tokens", "half_width", "layer_bytes", "share_8bit"),
    "nanotron": ("compute_share", "half_tokens", "half_width", "launch_s", "crowded_launch_s", "send_s"),
    "torchtitan": ("compute_share",),
}
"""By framework, at most six; the others are common to all."""
ROUNDS, TRIES = 40, 8
PENALTY = 0.003
"""What a number adds to the loss that leaves where it began, times the square of the logarithm of how far."""
CUT_OFF = 1.5
LEAST_ERROR, STEP = 0.01, 0.02


@dataclass(frozen=True, kw_only=True)
class Case:
    """A published run that has a throughput."""

    run: PublishedRun
    given: GivenLayout
    throughput: float


def cases_of(runs: Sequence[PublishedRun]) -> list[Case]:
    """Return the runs that have a throughput as layouts."""
    return [
        Case(run=run, given=given_layout(read_cells(run.cells, 1), 1, {}), throughput=run.tokens_per_second_per_gpu)
        for run in runs
        if run.tokens_per_second_per_gpu
    ]


Together = list[tuple[list[int], GivenLayout, Run, Layout]]
"""Runs that are evaluated at once: their places, one of them, and all as arrays."""


def grouped(cases: Sequence[Case]) -> Together:
    """Return runs so that those that are alike can be evaluated at once."""
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for at, case in enumerate(cases):
        groups[alike(case.given)].append(at)
    return [
        (places, cases[places[0]].given, *together([cases[at].given for at in places])) for places in groups.values()
    ]


def throughputs(groups: Together, speed: Speed) -> np.ndarray:
    """Return the predicted tokens a second and GPU of each run."""
    found = np.zeros(sum(len(places) for places, *_ in groups))
    for places, first, run, layout in groups:
        found[places] = step_time(first.spec, run, layout, first.gpu, speed).tokens_per_second_per_gpu
    return found


def fitted(framework: str, cases: Sequence[Case]) -> Speed:
    """Return the speed of a framework with its numbers fitted to some runs, each dataset weighing the same."""
    start = replace(SPEEDS["none"], **_STARTS.get(framework, {}))
    names = FITTED[framework]
    origin = np.log([getattr(start, name) for name in names])
    most = np.where([name in SHARES for name in names], 0.0, np.inf)
    weights, groups = _weights(cases), grouped(cases)
    published = np.log([case.throughput for case in cases])

    def off(at: np.ndarray) -> np.ndarray:
        return np.log(throughputs(groups, _speed_at(start, names, at))) - published

    def loss(at: np.ndarray, errors: np.ndarray) -> float:
        return float(weights @ np.minimum(np.abs(errors), CUT_OFF) + PENALTY * ((at - origin) ** 2).sum())

    best, damping = origin, 0.01
    errors = off(best)
    for _ in range(ROUNDS):
        slopes = np.stack([off(best + STEP * one) - errors for one in np.eye(len(names))], axis=1) / STEP
        # Squares weighed so that they are absolute values: a run that is far off pulls no harder than one that is off.
        pull = weights * (np.abs(errors) < CUT_OFF) / np.maximum(np.abs(errors), LEAST_ERROR)
        curvature = slopes.T @ (pull[:, None] * slopes) + 2 * PENALTY * np.eye(len(names))
        downhill = slopes.T @ (pull * errors) + 2 * PENALTY * (best - origin)
        for _ in range(TRIES):
            move = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature) + 1e-6), downhill)
            changed = np.minimum(best - np.clip(move, -1, 1), most)
            after = off(changed)
            if loss(changed, after) < loss(best, errors) - 1e-9:
                best, errors, damping = changed, after, damping / 4
                break
            damping *= 4
        else:
            break
    return _speed_at(start, names, best)


def _speed_at(start: Speed, names: Sequence[str], at: np.ndarray) -> Speed:
    return replace(start, **dict(zip(names, np.exp(at).tolist(), strict=True)))


_STARTS = {
    # The others' code takes less time by far than their kernels.
    "nanotron": {"launch_s": 4e-3, "crowded_launch_s": 2e-3},
    # cuDNN's attention on an H100, heads of 128, 8,192 tokens: 529 TFLOP/s forward under a causal mask, 518 backward
    # without one, which computes the scores once more (arXiv 2407.08608, figures 5 and 6). Together that is 0.45; what
    # a mask costs backward is not in the paper.
    "megatron": {"attention_share": 0.44},
}
"""Where the numbers of a framework begin, if not in the midst of all."""


def _weights(cases: Sequence[Case]) -> np.ndarray:
    sizes: defaultdict[str, int] = defaultdict(int)
    for case in cases:
        sizes[case.run.dataset] += 1
    return np.array([1 / sizes[case.run.dataset] for case in cases]) / len(sizes)
