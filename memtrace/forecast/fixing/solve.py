"""The cheapest set of modules to compute again so that the level stays below a target at every moment of a step.

In: `StepModel` and a target. Out: names of candidates. A mixed-integer program, one variable a candidate (a module, or
what an operator of it gives back), solved by
HiGHS through SciPy, which is imported here only. A row of it is a stretch of moments between two at which anything
could change, with the largest level in it; identical blocks are chosen from the first on, since what an earlier one
keeps is kept for longer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from memtrace.forecast.fixing.step_model import Candidate, StepModel, saved_name
from memtrace.store.columns import IntArray

TIME_LIMIT_S = 4.0
_GAP = 0.01
_ALIKE = 0.05
"""Two blocks are identical whose costs and bytes differ by no more than this share, and whose later keeps no more."""

_MOST_VARIABLES = 150
"""With more candidates than this, identical neighbours are chosen together."""
_INFEASIBLE = 2
"""What SciPy reports of a program that has no solution."""
TOO_LONG: tuple[str, ...] = ("",)
"""Stands for an answer that was not found in time."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A choice of candidates."""

    chosen: tuple[str, ...]
    """Their names, in the order of the candidates."""
    peak_bytes: int
    """The largest level with it."""
    cost_s: float
    """Seconds that a step takes longer."""


def cheapest(model: StepModel, target_bytes: int) -> Solution | None:
    """Return the cheapest choice whose level stays within the target; `None` if no choice does."""
    if model.peak_bytes <= target_bytes:
        return _solution(model, ())
    if not model.candidates:
        return None
    cuts, levels = _rows(model)
    # Tiny beside any cost, so that of two choices that cost the same the one with fewer modules is taken.
    costs = np.array([one.cost_s for one in model.candidates])
    costs = costs + max(float(costs.max()), 1e-9) * 1e-4
    needed = levels - float(target_bytes)
    binding = np.flatnonzero(needed > -np.clip(-cuts, 0, None).sum(axis=1))
    found = _solve(costs, cuts[binding], needed[binding], model.candidates)
    if found is TOO_LONG:
        if any(one.within for one in model.candidates):
            return cheapest(model.modules, target_bytes)
        found, peak = _greedy(costs, cuts, levels, model.candidates, target_bytes)
        return _solution(model, found) if peak <= target_bytes else None
    return None if found is None else _solution(model, found)


def smallest(model: StepModel) -> Solution:
    """Return the choice with the smallest peak, whatever it costs."""
    model = model.modules
    if not model.candidates:
        return _solution(model, ())
    cuts, levels = _rows(model)
    count = len(model.candidates)
    scale = float(levels.max())
    # One more variable, the peak as a share of the plain one: level - cuts ≤ peak.
    rows = np.hstack([cuts / scale, np.ones((len(cuts), 1))])
    costs = np.append(np.full(count, 1e-6), 1.0)
    found = _solve(costs, rows, levels / scale, model.candidates, is_share=True)
    if not found:
        found, _ = _greedy(np.ones(count), cuts, levels, model.candidates, 0)
    return _solution(model, found)


def _solution(model: StepModel, chosen: tuple[str, ...]) -> Solution:
    return Solution(chosen=chosen, peak_bytes=int(model.level_with(chosen).max()), cost_s=model.cost_of(chosen))


def _solve(
    costs: Matrix, rows: Matrix, needed: Matrix, candidates: tuple[Candidate, ...], *, is_share: bool = False
) -> tuple[str, ...] | None:
    """Return the candidates of the cheapest choice with rows @ choice ≥ needed; `None` if there is no such choice."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    count, extra = len(candidates), int(is_share)
    scale = max(float(np.abs(rows).max(initial=0.0)), 1.0)
    constraints: list[Any] = [LinearConstraint(rows / scale, lb=needed / scale)]
    width = count + extra
    for bound, made in (
        (0.0, [*_orders(candidates, width), *_within(candidates, width)]),
        (1.0, [*_exclusive(candidates, width), *_later_results(candidates, width)]),
    ):
        if made:
            constraints.append(LinearConstraint(np.array(made), ub=bound))
    result = milp(
        costs / max(float(np.abs(costs).max()), 1e-12),
        integrality=np.append(np.ones(count), np.zeros(extra)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"time_limit": TIME_LIMIT_S, "mip_rel_gap": _GAP},
    )
    if result.x is None:
        return None if result.status == _INFEASIBLE else TOO_LONG
    return tuple(one.name for one, value in zip(candidates, result.x, strict=False) if value > 0.5)


def _greedy(
    costs: Matrix, cuts: Matrix, levels: Matrix, candidates: tuple[Candidate, ...], target_bytes: int
) -> tuple[tuple[str, ...], float]:
    """Return a choice, and its peak, that takes at each largest moment what cuts most of it for its seconds.

    It is as good as it comes, for steps with so many modules that the solver finds no choice in its time.
    """
    at = {one.name: index for index, one in enumerate(candidates)}
    inside: dict[int, list[int]] = defaultdict(list)
    for index, one in enumerate(candidates):
        for outer in one.around:
            inside[at[outer]].append(index)
    chosen: set[int] = set()
    best: tuple[float, tuple[int, ...]] = float(levels.max()), ()
    closed = np.zeros(len(candidates), bool)
    for _ in range(2 * len(candidates)):
        level = levels - cuts[:, sorted(chosen)].sum(axis=1)
        peak = float(level.max())
        if peak < best[0]:
            best = peak, tuple(sorted(chosen))
        # What is inside a module that holds the moment goes with it, if it was chosen before.
        gain = cuts[int(level.argmax())].copy()
        for around, members in inside.items():
            gain[around] -= sum(gain[member] for member in members if member in chosen)
        worth = np.where(closed | (gain <= 0), -1.0, gain / np.maximum(costs, 1e-12))
        if peak <= target_bytes or worth.max() <= 0:
            break
        taken = int(worth.argmax())
        chosen = (chosen - set(inside[taken])) | {taken}
        closed[[taken, *inside[taken]]] = True
    kept = list(best[1])
    for early in sorted(best[1], key=lambda index: -costs[index]):
        # What came early may not be needed any more.
        without = [other for other in kept if other != early]
        if float((levels - cuts[:, without].sum(axis=1)).max()) <= max(target_bytes, best[0]):
            kept = without
    return tuple(candidates[index].name for index in kept), float((levels - cuts[:, kept].sum(axis=1)).max())


def _rows(model: StepModel) -> tuple[Matrix, Matrix]:
    """Return for each stretch of moments what each candidate takes off the level, and the largest level in it."""
    level = model.level
    edges = {0, len(level)}
    for one in model.candidates:
        for span in (*one.cuts, *one.adds, *one.spikes):
            edges.update((span.start, span.end))
    starts = np.array(sorted(edge for edge in edges if 0 <= edge < len(level)), np.int64)
    largest: IntArray = np.maximum.reduceat(level, starts)
    cuts = np.zeros((len(starts), len(model.candidates)))
    for at, one in enumerate(model.candidates):
        for span, sign in [*((cut, 1) for cut in one.cuts), *((add, -1) for add in (*one.adds, *one.spikes))]:
            first, last = np.searchsorted(starts, [span.start, span.end])
            cuts[first:last, at] += sign * span.size_bytes
    # Of rows that say the same of every candidate, the one with the largest level says it all.
    kept: dict[bytes, int] = {}
    for at, row in enumerate(cuts):
        key = row.tobytes()
        if key not in kept or largest[at] > largest[kept[key]]:
            kept[key] = at
    chosen = sorted(kept.values())
    return cuts[chosen], largest[chosen].astype(np.float64)


def _orders(candidates: tuple[Candidate, ...], width: int) -> list[Matrix]:
    """Return rows that say: of two identical blocks, not the later one without the earlier, or what holds that."""
    at = {one.name: index for index, one in enumerate(candidates)}
    rows: list[Matrix] = []
    together = -(-len(candidates) // _MOST_VARIABLES)
    for number, (earlier, later) in enumerate(_alike(candidates)):
        row = np.zeros(width)
        row[later] = 1.0
        row[[earlier, *(at[outer] for outer in candidates[earlier].around)]] = -1.0
        rows.append(row)
        if (number + 1) % together:
            row = np.zeros(width)
            row[earlier] = 1.0
            row[[later, *(at[outer] for outer in candidates[later].around)]] = -1.0
            rows.append(row)
    return rows


def _within(candidates: tuple[Candidate, ...], width: int) -> Iterator[Matrix]:
    """Yield rows that say: no result is kept of a module that is not computed again."""
    at = {one.name: index for index, one in enumerate(candidates)}
    for index, one in enumerate(candidates):
        if one.within is not None:
            row = np.zeros(width)
            row[index], row[at[one.within]] = 1.0, -1.0
            yield row


def _later_results(candidates: tuple[Candidate, ...], width: int) -> Iterator[Matrix]:
    """Yield rows that say: of two identical blocks, both computed again, not what the earlier gave without the later's.

    The later's is kept for less long.
    """
    at = {one.name: index for index, one in enumerate(candidates)}
    results: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(candidates):
        if one.within is not None:
            results[one.within].append(index)
    for earlier, later in _alike(candidates):
        for index in results[candidates[earlier].name]:
            twin = at.get(saved_name(candidates[later].name, candidates[index].name.rpartition(":")[2]))
            if twin is not None:
                row = np.zeros(width)
                row[index], row[twin], row[later] = 1.0, -1.0, 1.0
                yield row


def _alike(candidates: tuple[Candidate, ...]) -> Iterator[tuple[int, int]]:
    """Yield pairs of identical blocks, each with the next, of which the earlier is away whenever the later is."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, one in enumerate(candidates):
        if len(one.cuts) == 1:
            groups[one.class_name, re.sub(r"\d+", "", one.name)].append(at)
    for members in groups.values():
        for earlier, later in pairwise(members):
            one, other = candidates[earlier], candidates[later]
            holds = one.cuts[0].start <= other.cuts[0].start and other.cuts[0].end <= one.cuts[0].end
            if holds and _serves_as(one, other) and _close(one.cost_s, other.cost_s):
                yield earlier, later


def _serves_as(one: Candidate, other: Candidate) -> bool:
    """Return whether one block takes as much off as another, and adds no more: then it may be chosen in its place.

    A byte less might be the byte for want of which a second block is computed again.
    """
    added, other_added = (sum(span.size_bytes for span in (*each.adds, *each.spikes)) for each in (one, other))
    return one.kept_bytes >= other.kept_bytes and added <= other_added and _close(one.kept_bytes, other.kept_bytes)


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _ALIKE * max(abs(one), abs(other), 1e-12)


def _exclusive(candidates: tuple[Candidate, ...], width: int) -> list[Matrix]:
    """Return rows that say: not both a module and one that holds it."""
    at = {one.name: index for index, one in enumerate(candidates)}
    rows: list[Matrix] = []
    for index, one in enumerate(candidates):
        for outer in one.around:
            row = np.zeros(width)
            row[index] = row[at[outer]] = 1.0
            rows.append(row)
    return rows
