"""The steady-state peak from a recording that ends with the first step, or inside it.

In: `DeviceHistory`, the spans of its steps and a capacity. Out: `PredictedPeak`; `None` where no backward pass of the
first step ended, or where nothing tells what parameters are.

The first step is repeated on top of what is resident when the second begins. What was not recorded is derived: states
and temporaries of the optimizer from its class and options, the fate of gradients from where `zero_grad` ran.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.attribution.size_matching import count_sizes
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import module_at, phase_at
from memtrace.analysis.device.peak import in_order
from memtrace.analysis.device.steps import StepSpan
from memtrace.analysis.events.optimizer_options import options_of
from memtrace.analysis.first_step.first_loop import FirstLoop, read_first_loop
from memtrace.analysis.first_step.gradient_fate import assumed, gradient_fates
from memtrace.analysis.first_step.next_step import NextStep, Unrecorded, next_step
from memtrace.analysis.first_step.optimizer_needs import Group, Parameter, state_bytes, step_bytes
from memtrace.analysis.results.report import Peak, PredictedPeak
from memtrace.schema.names import Category, Decision, Phase
from memtrace.schema.shapes import parse_shape
from memtrace.store.columns import NULL
from memtrace.units import format_bytes

_DOUBT = 0.02
"""Share by which the peak of the full recording differs from the prediction at worst: benchmarks/steady_state.py."""


def predict_steady_state(
    history: DeviceHistory,
    spans: Mapping[int, StepSpan],
    *,
    capacity_bytes: int | None,
    non_torch_bytes: int | None = None,
) -> PredictedPeak | None:
    """Return the peak that the steps after the first will have."""
    loop = read_first_loop(history, spans)
    if loop is None or not np.any(loop.category == CATEGORIES.index(Category.PARAMETER)):
        return None
    assumptions: list[str] = []
    fates = gradient_fates(history, loop)
    assumptions.extend(assumed(fates))
    needs = [None] if loop.has_optimizer_step else _unrecorded(history, loop, assumptions)
    # The likeliest comes first; the others tell how far it may be off.
    steps = [next_step(history, loop, fate, more) for fate in fates for more in needs]
    totals = [int(one.total.max()) for one in steps]
    beside = _beside(history, loop) + (non_torch_bytes or 0)
    low, high = round(min(totals) * (1 - _DOUBT)), round(max(totals) * (1 + _DOUBT))
    return PredictedPeak(
        **asdict(_peak(history, loop, steps[0])),
        low_bytes=low,
        high_bytes=high,
        assumptions=tuple(assumptions),
        needed_bytes=totals[0] + beside,
        capacity_bytes=capacity_bytes,
        fits=_fits(low + beside, high + beside, capacity_bytes),
    )


def _fits(low: int, high: int, capacity: int | None) -> bool | None:
    if capacity is None or low <= capacity < high:
        return None
    return high <= capacity


def _beside(history: DeviceHistory, loop: FirstLoop) -> int:
    """Return what the allocator held beside requested bytes at its worst in the first step; 0 on the CPU."""
    reserved = history.levels.reserved
    if reserved is None:
        return 0
    pattern = slice(loop.first, loop.last + 1)
    return max(int(reserved[pattern].max()) - int(history.levels.requested[pattern].max()), 0)


def _unrecorded(history: DeviceHistory, loop: FirstLoop, assumptions: list[str]) -> list[Unrecorded | None]:
    """Return what the optimizer's step will add, the likeliest first; two ways where its class is not known."""
    parameters, groups = _with_gradient(history, loop), parameter_groups(history)
    states = state_bytes(groups, parameters, is_cpu=history.is_cpu)
    temporaries = step_bytes(groups, parameters, is_cpu=history.is_cpu)
    there = history.lifetimes.size_bytes[_live(history, loop, Category.OPTIMIZER_STATE)].sum()
    whole = sum(one.num_bytes for one in parameters)
    if states is None or temporaries is None:
        assumptions.append("The optimizer is not known: two states as large as the parameters, as Adam has, or none.")
        return [Unrecorded(state_bytes=max(2 * whole - int(there), 0), step_bytes=whole), None]
    every = int(history.lifetimes.size_bytes[_live(history, loop, Category.PARAMETER)].sum())
    if whole < every:
        share = f"{format_bytes(every - whole)} of {format_bytes(every)}"
        assumptions.append(f"{share} of parameters have no gradient of their size, and get no optimizer state.")
    names = sorted({group.class_name for group in groups})
    assumptions.append(f"The optimizer step was not recorded: its needs are those of torch's {', '.join(names)}.")
    return [Unrecorded(state_bytes=max(states - int(there), 0), step_bytes=temporaries)]


def _live(history: DeviceHistory, loop: FirstLoop, category: Category) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return the allocations of a category in use at the end of the pattern, in the order in which they were made."""
    lifetimes = history.lifetimes
    live = (lifetimes.start <= loop.last) & (lifetimes.in_use_end > loop.last)
    rows = np.flatnonzero(live & (loop.category == CATEGORIES.index(category)))
    return rows[np.argsort(lifetimes.start[rows], kind="stable")]


def _with_gradient(history: DeviceHistory, loop: FirstLoop) -> list[Parameter]:
    """Return the parameters that have a gradient, told by its size, in the order in which owners were listed.

    Where most have none of their size, gradients are views of communication buffers: then every parameter has one.
    """
    lifetimes, owners = history.lifetimes, history.rank.table("owners")
    gradients = count_sizes(lifetimes.size_bytes[_live(history, loop, Category.GRADIENT)])
    rows = _live(history, loop, Category.PARAMETER)
    owner = history.attribution.owner_row[rows]
    listed = np.argsort(np.where(owner == NULL, len(owners), owner), kind="stable")
    found, every = [], []
    for row, named in zip(rows[listed].tolist(), owner[listed].tolist(), strict=True):
        size = int(lifetimes.size_bytes[row])
        every.append(_parameter(history, size, named))
        if gradients[size] > 0:
            gradients[size] -= 1
            found.append(every[-1])
    has_most = 2 * sum(one.num_bytes for one in found) >= sum(one.num_bytes for one in every)
    return found if has_most or not _has_buckets(history, loop) else every


def _has_buckets(history: DeviceHistory, loop: FirstLoop) -> bool:
    return len(_live(history, loop, Category.COMMUNICATION)) > 0 or (history.rank.header.get("world_size") or 1) > 1


def _parameter(history: DeviceHistory, size: int, owner: int) -> Parameter:
    """Return a parameter with the shape that its owner row tells; as a vector of bytes where it tells none."""
    owners = history.rank.table("owners")
    text = None if owner == NULL else history.rank.text(int(owners["shape"][owner]))
    shape = parse_shape(text)
    count = math.prod(shape) if shape else 0
    if not shape or count <= 0 or size % count or size // count > 16:
        return Parameter((size,), 1)
    return Parameter(shape, size // count)


def parameter_groups(history: DeviceHistory) -> list[Group]:
    """Return the parameter groups that the recording describes."""
    groups = []
    for at, row in enumerate(history.rank.table("optimizers").rows()):
        name = history.rank.text(row["class_name"]) or ""
        options = options_of(history.rank, at)
        groups.append(Group(class_name=name, options=options, num_parameters=row["num_parameters"]))
    return groups


def _peak(history: DeviceHistory, loop: FirstLoop, step: NextStep) -> Peak:
    """Return the largest moment of the next step."""
    at = step.peak_at()
    by_category = {category.value: int(level[at]) for category, level in step.levels.items()}
    requested, unknown = int(step.total[at]), by_category[Category.UNKNOWN.value]
    is_added = loop.first + at > loop.last
    time_ns = None if is_added else int(history.moments.time_ns[loop.first + at])
    # Repeated bytes may come out differently, however exactly their first appearance is known.
    by_decision = {Decision.LIFETIME_RULE.value: requested - unknown, Decision.UNKNOWN.value: unknown}
    shown = {name: size for name, size in by_category.items() if size or name == Category.UNKNOWN.value}
    return Peak(
        allocated_bytes=requested if history.is_cpu else None,
        requested_bytes=requested,
        pending_free_bytes=None,
        reserved_bytes=None,
        device_used_bytes=None,
        non_torch_bytes=None,
        by_category=in_order(shown, Category),
        by_decision=in_order(by_decision, Decision),
        time_ns=None,
        step=2,
        phase=Phase.OPTIMIZER.value if time_ns is None else phase_at(history, time_ns),
        module=None if time_ns is None else module_at(history, time_ns),
        event=None,
        predicted=True,
    )
