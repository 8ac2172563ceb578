"""Fits the few numbers of a framework's `Speed` to published runs, and answers for runs with any `Speed`.

In: published runs as given layouts. Out: throughputs; a fitted `Speed`. The fit is a coordinate search: each number in
turn is raised or lowered by a step that shrinks, and a change stays where the loss falls. The loss is the mean and the
median of |log(predicted / published)|, cut off at 1.5 so that broken runs weigh no more than bad ones, and a little for
each number that leaves where it began, since few groups cannot tell some numbers apart.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.published.rows import PublishedRun
from memtrace.forecast.evaluation.columns import read_cells
from memtrace.forecast.evaluation.evaluate import alike, together
from memtrace.forecast.evaluation.layouts import GivenLayout, given_layout
from memtrace.forecast.step_time.speed import SPEEDS, Speed
from memtrace.forecast.step_time.step import step_time

SHARES = (
    "compute_share",
    "attention_share",
    "bandwidth_share",
    "overlap",
    "unaligned_share",
    "share_8bit",
    "later_share",
)
"""Numbers that cannot be more than 1."""
FITTED = {
    "fsdp": ("compute_share", "half_tokens", "half_width", "layer_bytes", "attention_share", "overlap"),
    "deepspeed": ("compute_share", "half_tokens", "half_width", "attention_share", "unaligned_share", "overlap"),
    "megatron": ("compute_share", "later_share", "half_tokens", "half_width", "layer_bytes", "share_8bit"),
    "nanotron": ("compute_share", "half_tokens", "half_width", "launch_s", "crowded_launch_s", "send_s"),
    "torchtitan": ("compute_share",),
}
"""By framework, at most six; the others are common to all."""
ROUNDS, PENALTY = 8, 0.01


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


def throughputs(cases: Sequence[Case], speed: Speed) -> np.ndarray:
    """Return the predicted tokens a second and GPU of each run."""
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for at, case in enumerate(cases):
        groups[alike(case.given)].append(at)
    found = np.zeros(len(cases))
    for places in groups.values():
        run, layout = together([cases[at].given for at in places])
        first = cases[places[0]].given
        found[places] = step_time(first.spec, run, layout, first.gpu, speed).tokens_per_second_per_gpu
    return found


def fitted(framework: str, cases: Sequence[Case]) -> Speed:
    """Return the speed of a framework with its numbers fitted to some runs, each dataset weighing the same."""
    start = best = SPEEDS["none"] if framework != "nanotron" else replace(SPEEDS["none"], **_NANOTRON)
    weights = _weights(cases)
    lowest = _loss(cases, weights, best, start, framework)
    steps = dict.fromkeys(FITTED[framework], 0.5)
    for _ in range(ROUNDS):
        for name, step in steps.items():
            for factor in (1 + step, 1 / (1 + step)):
                value = getattr(best, name) * factor
                changed = replace(best, **{name: min(1.0, value) if name in SHARES else value})
                loss = _loss(cases, weights, changed, start, framework)
                if loss < lowest - 1e-9:
                    best, lowest = changed, loss
                    break
            else:
                steps[name] *= 0.6
    return best


_NANOTRON = {"launch_s": 4e-3, "crowded_launch_s": 2e-3}
"""Of its code a start of its own: the others take less time by far than their kernels."""


def _weights(cases: Sequence[Case]) -> np.ndarray:
    sizes: defaultdict[str, int] = defaultdict(int)
    for case in cases:
        sizes[case.run.dataset] += 1
    return np.array([1 / sizes[case.run.dataset] for case in cases]) / len(sizes)


def _loss(cases: Sequence[Case], weights: np.ndarray, speed: Speed, start: Speed, framework: str) -> float:
    published = np.array([case.throughput for case in cases])
    off = np.minimum(np.abs(np.log(throughputs(cases, speed) / published)), 1.5)
    moved = sum(math.log(getattr(speed, name) / getattr(start, name)) ** 2 for name in FITTED[framework])
    order = np.argsort(off)
    median = off[order][np.searchsorted(np.cumsum(weights[order]), 0.5)]
    return float((weights * off).sum() + median + PENALTY * moved)
