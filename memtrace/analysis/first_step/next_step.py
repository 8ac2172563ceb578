"""The second step, put together from the first: each allocation again, on top of what is resident by then.

In: `DeviceHistory`, its `FirstLoop`, and a fate for the gradients. Out: `NextStep`: bytes by category over the moments
of the first step, and one moment more for an optimizer step that was not recorded.

    step 1     params ────────────────────      grads      ┌────      states              ┌──    logits     ┌────
    step 2     params ────────────────────      grads      ┌────      states ──────────────      logits ─────┐┌───
                                                 (or from the start, until zero_grad)           (the old ones, too)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.attribution.size_matching import count_sizes, match_sizes
from memtrace.analysis.device.byte_levels import running_level
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.first_step.first_loop import FirstLoop
from memtrace.analysis.first_step.gradient_fate import Gradients
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, BoolArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NextStep:
    """Bytes over the moments of the pattern, and after them one moment of the optimizer step if it was not recorded."""

    first: int
    """The moment of the history that position 0 repeats."""
    levels: Mapping[Category, IntArray]
    total: IntArray

    def peak_at(self) -> int:
        """Return the position of the largest total, the earliest of equals."""
        return int(np.argmax(self.total))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrecorded:
    """What an optimizer step that was not recorded will add."""

    state_bytes: int
    """States that will be resident."""
    step_bytes: int
    """Temporaries that its step holds at once."""


def next_step(history: DeviceHistory, loop: FirstLoop, gradients: Gradients, more: Unrecorded | None) -> NextStep:
    """Return the second step."""
    rows, start, end = _intervals(history, loop, gradients)
    num = loop.last - loop.first + 1
    levels = {}
    category = loop.category[rows]
    for code in np.unique(category).tolist():
        chosen = category == code
        sizes = history.lifetimes.size_bytes[rows[chosen]]
        levels[CATEGORIES[code]] = running_level(start[chosen], end[chosen], sizes, num)
    unknown = levels.get(Category.UNKNOWN, np.zeros(num, np.int64))
    levels[Category.UNKNOWN] = unknown + history.levels.base[loop.first : loop.last + 1]
    if more is not None:
        levels = _with_optimizer_step(levels, more)
    return NextStep(
        first=loop.first,
        levels=levels,
        total=np.asarray(sum(levels.values())),
    )


def _with_optimizer_step(levels: Mapping[Category, IntArray], more: Unrecorded) -> dict[Category, IntArray]:
    """Return the levels with states from the start on, and a last moment at which the optimizer steps."""
    longer = {category: np.append(level, level[-1]) for category, level in levels.items()}
    none = np.zeros(len(next(iter(longer.values()))), np.int64)
    if more.state_bytes:
        longer[Category.OPTIMIZER_STATE] = longer.get(Category.OPTIMIZER_STATE, none) + more.state_bytes
    if more.step_bytes:
        temporary = longer.get(Category.TEMPORARY, none).copy()
        temporary[-1] += more.step_bytes
        longer[Category.TEMPORARY] = temporary
    return longer


def _intervals(history: DeviceHistory, loop: FirstLoop, gradients: Gradients) -> tuple[IntArray, IntArray, IntArray]:
    """Return rows of lifetimes with start and end positions in the next step."""
    lifetimes, stop = history.lifetimes, loop.last + 1
    start, end = lifetimes.start, np.minimum(lifetimes.in_use_end, stop)
    own = np.flatnonzero((start <= loop.last) & (lifetimes.in_use_end > loop.first))
    is_gradient = loop.category == CATEGORIES.index(Category.GRADIENT)
    made = (start > loop.first) & (start <= loop.last)
    stays = made & (lifetimes.in_use_end > loop.known_until)
    others = np.flatnonzero(stays & ~is_gradient & ~is_resident(loop))
    left = others[is_rebound(history, others)]
    resident = stays & ~is_gradient
    resident[left] = False
    resident[_replacing(history, loop, np.flatnonzero(resident))] = False
    begin = np.where(resident, loop.first, np.maximum(start, loop.first))
    old_gradients = np.flatnonzero(is_gradient & (start <= loop.last) & (lifetimes.in_use_end > loop.last))
    if gradients is Gradients.KEPT:
        end = end.copy()
        fresh = old_gradients[made[old_gradients]]
        end[fresh] = _accumulated(start, fresh, loop.backward_end)
    until = _rebound_at(history, loop, left)
    old_end = {Gradients.FREED: loop.first, Gradients.UNTIL_BACKWARD: loop.backward + 1, Gradients.KEPT: stop}[
        gradients
    ]
    # What was made before the step and is a gradient is in use through it already.
    again = old_gradients[made[old_gradients]]
    rows = np.concatenate([own, left, again])
    starts = np.concatenate([begin[own], np.full(len(left) + len(again), loop.first)])
    ends = np.concatenate([end[own], until, np.full(len(again), old_end)])
    return rows, starts - loop.first, np.maximum(ends, starts) - loop.first


def _replacing(history: DeviceHistory, loop: FirstLoop, made: IntArray) -> IntArray:
    """Return which residents that the step made took the place of others, as an update that is not in place does.

    The next step replaces them in turn: the old one is in use until then, the new one from then on, as recorded.
    """
    lifetimes = history.lifetimes
    freed = (lifetimes.start <= loop.first) & (lifetimes.in_use_end > loop.first) & (lifetimes.in_use_end <= loop.last)
    found = [np.zeros(0, np.int64)]
    whole = np.zeros(len(lifetimes), np.intp)
    for category in np.unique(loop.category[made]).tolist():
        counts = count_sizes(lifetimes.size_bytes[freed & (loop.category == category)])
        found.append(match_sizes(made[loop.category[made] == category], lifetimes.size_bytes, counts, per_phase=whole))
    return np.concatenate(found)


def is_resident(loop: FirstLoop) -> BoolArray:
    """Return which allocations are of categories that stay once they are there."""
    names = (Category.PARAMETER, Category.BUFFER, Category.OPTIMIZER_STATE, Category.COMMUNICATION, Category.WORKSPACE)
    return np.isin(loop.category, [CATEGORIES.index(one) for one in names])


def is_rebound(history: DeviceHistory, rows: IntArray) -> BoolArray:
    """Return which of some allocations were made before a backward pass: a variable of the loop holds what stays."""
    moments, phases = history.moments, history.rank.table("phases")
    phase = history.phases.innermost(moments.time_ns[history.lifetimes.start[rows]])
    names = np.append(phases["phase"], NULL)[phase]
    later = [history.rank.string_id(one.value) for one in (Phase.BACKWARD, Phase.OPTIMIZER, Phase.RECOMPUTE)]
    return ~np.isin(names, later)


def _accumulated(start: IntArray, fresh: IntArray, last: int) -> IntArray:
    """Return until when each new gradient lives beside the one it is added to: until the next one is made.

    Autograd adds a gradient as soon as it is there, before anything else of the backward pass.
    """
    order = np.argsort(start[fresh], kind="stable")
    later = np.append(start[fresh][order], [last])[1:]
    end = np.empty(len(fresh), np.int64)
    end[order] = later
    return end


def _rebound_at(history: DeviceHistory, loop: FirstLoop, left: IntArray) -> IntArray:
    """Return the moment of the next step at which each leftover of this one is replaced by its like.

    The like is the first allocation of the same size from the same line; the variable that holds the old one gets
    the new one when the outermost module call around it returns.
    """
    lifetimes = history.lifetimes
    if not len(left):
        return np.zeros(0, np.int64)
    around = np.flatnonzero((lifetimes.start <= loop.last) & (lifetimes.in_use_end > loop.first))
    around = around[np.argsort(lifetimes.start[around], kind="stable")]
    _, of_size = np.unique(lifetimes.size_bytes[around], return_inverse=True)
    stacks, of_stack = np.unique(lifetimes.stack[around], return_inverse=True)
    _, first, alike = np.unique(of_size * len(stacks) + of_stack, return_index=True, return_inverse=True)
    position = np.empty(len(lifetimes), np.int64)
    position[around] = np.arange(len(around))
    like = lifetimes.start[around[first[alike[position[left]]]]]
    ends = np.where(like <= loop.first, loop.first, _returned(history, like))
    return np.minimum(ends, loop.last + 1)


def _returned(history: DeviceHistory, at: IntArray) -> IntArray:
    """Return the moments after the outermost module calls around moments have returned; the next one outside any."""
    spans, moments = history.scopes, history.moments
    inner = spans.innermost(moments.time_ns[at])
    if not len(spans.rows):
        return at + 1
    place = np.empty(int(spans.rows.max()) + 1, np.int64)
    place[spans.rows] = np.arange(len(spans.rows))
    outer = np.where(inner >= 0, place[inner], -1)
    while np.any(has_outer := (outer >= 0) & (spans.parent[outer] >= 0)):
        outer = np.where(has_outer, spans.parent[outer], outer)
    # A call that never returned holds what it made to the end.
    end_ns = np.minimum(spans.end_ns[outer], moments.time_ns[-1])
    return np.where(outer >= 0, moments.at_times(end_ns), at) + 1
