"""What the first step allocates and no later one: workspaces that stay, trials of kernels, caches that are filled once.

In: `DeviceHistory`, the spans of its steps. Out: `FirstStepEffect`s. Allocations of two steps are alike if they come
from the same stack and are as large; where sizes change from step to step, only their number from a stack counts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.attribute import CATEGORIES
from memtrace.analysis.device.byte_levels import running_level
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import phase_at
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.device.steps import StepSpan
from memtrace.analysis.results.report import FirstStepEffect
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray

_EXPECTED = (Category.PARAMETER, Category.BUFFER, Category.GRADIENT, Category.OPTIMIZER_STATE, Category.COMMUNICATION)
"""Categories that the first step makes once by their nature: other entries of the catalogue tell of them."""


def one_time_allocations(history: DeviceHistory, spans: Mapping[int, StepSpan]) -> tuple[FirstStepEffect, ...]:
    """Return what only step 1 allocated, apart by whether it stays; nothing without a recorded second step."""
    ended = {span.step: span for span in spans.values() if span.recorded and _has_end(history, span)}
    if 1 not in ended or 2 not in ended:
        return ()
    rows = _only_in_first(history, _made_in(history, ended[1]), _made_in(history, ended[2]))
    stays = history.lifetimes.in_use_end[rows] > ended[2].last
    effects = (_effect(history, rows[stays == kept], stays=kept) for kept in (True, False))
    return tuple(effect for effect in effects if effect is not None)


def _has_end(history: DeviceHistory, span: StepSpan) -> bool:
    return int(history.rank.table("steps")["end_ns"][span.row]) != NULL


def _made_in(history: DeviceHistory, span: StepSpan) -> IntArray:
    """Return the allocations of the training phases of a step that have a stack: without one none is known again."""
    lifetimes, moments = history.lifetimes, history.moments
    made = (lifetimes.start > span.first) & (lifetimes.start <= span.last) & (lifetimes.stack != NULL)
    expected = np.isin(history.attribution.category, [CATEGORIES.index(one) for one in _EXPECTED])
    rows = np.flatnonzero(made & ~expected)
    phases = history.rank.table("phases")["phase"]
    training = [history.rank.string_id(one.value) for one in (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)]
    training.append(history.rank.string_id(Phase.RECOMPUTE.value))
    phase = history.phases.innermost(moments.time_ns[lifetimes.start[rows]])
    in_training = np.isin(np.append(phases, NULL)[phase], training)
    return rows[in_training]


def _only_in_first(history: DeviceHistory, first: IntArray, second: IntArray) -> IntArray:
    """Return the allocations of one step that another has no like of."""
    lifetimes = history.lifetimes
    stack = np.concatenate([lifetimes.stack[first], lifetimes.stack[second]])
    size = np.concatenate([lifetimes.size_bytes[first], lifetimes.size_bytes[second]])
    _, stack_code = np.unique(stack, return_inverse=True)
    _, size_code = np.unique(size, return_inverse=True)
    alike = stack_code * (int(size_code.max(initial=0)) + 1) + size_code
    # The largest first, so that where a stack has a few too many it is the conspicuous ones that count.
    order = np.argsort(-size[: len(first)], kind="stable")
    of_alike, of_stack = alike[: len(first)][order], stack_code[: len(first)][order]
    is_more = _running_count(of_alike) < _surplus(alike, len(first))[of_alike]
    candidates, of_stack = order[is_more], of_stack[is_more]
    found: IntArray = first[candidates[_running_count(of_stack) < _surplus(stack_code, len(first))[of_stack]]]
    return found


def _surplus(code: npt.NDArray[np.intp], num_first: int) -> IntArray:
    """Return for each code how many more rows of the first step than of the second have it.

    >>> _surplus(np.array([1, 1, 2, 1]), 3).tolist()
    [0, 1, 1]
    """
    size = int(code.max(initial=0)) + 1
    return np.bincount(code[:num_first], minlength=size) - np.bincount(code[num_first:], minlength=size)


def _running_count(code: npt.NDArray[np.intp]) -> IntArray:
    """Return for each row how many before it have the same code.

    >>> _running_count(np.array([5, 6, 5, 5])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))[: len(ordered)]
    count = np.empty(len(code), np.int64)
    lengths = np.diff(np.append(begins, len(ordered)))
    count[order] = np.arange(len(ordered)) - np.repeat(begins, lengths)
    return count


def _effect(history: DeviceHistory, rows: IntArray, *, stays: bool) -> FirstStepEffect | None:
    if not len(rows):
        return None
    lifetimes = history.lifetimes
    sizes, start = lifetimes.size_bytes[rows], lifetimes.start[rows]
    first = int(start.min())
    end = np.minimum(lifetimes.in_use_end[rows], lifetimes.num_moments)
    level = running_level(start - first, end - first, sizes, int(end.max()) - first + 1)
    largest = int(rows[sizes.argmax()])
    return FirstStepEffect(
        slug="one-time-allocations",
        title="Step 1 allocates what later steps do not"
        + (", and it stays: workspaces, caches" if stays else ", and frees it: trials of kernels, set-up"),
        num_bytes=int(level.max()),
        stays=stays,
        evidence={
            "num_allocations": len(rows),
            "total_bytes": int(sizes.sum()),
            "largest_bytes": int(sizes.max()),
            "phase": phase_at(history, int(history.moments.time_ns[lifetimes.start[largest]])),
            "where": place_of(history, rows),
        },
    )
