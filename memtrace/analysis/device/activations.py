"""Activations split every way that matters: by role, by module, by the operation that keeps them, by microbatch.

In: `DeviceHistory`. Out: `ActivationSplit` at a moment; `SavedForBackward` at the start of each backward.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.attribute import CATEGORIES, DECISIONS, ROLES
from memtrace.analysis.device.byte_levels import running_level
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.marks import modules_of
from memtrace.analysis.results.report import ActivationPart, ActivationSplit, SavedForBackward
from memtrace.schema.names import Category, Decision, Phase, Role
from memtrace.store.columns import NULL, IntArray


def activations_at(history: DeviceHistory, moment: int) -> ActivationSplit | None:
    """Return the activations that live at a moment; `None` where nothing is known to be one at any time."""
    if not np.any(history.attribution.category == CATEGORIES.index(Category.ACTIVATION)):
        return None
    live = history.lifetimes.live_at(moment)
    rows = live[history.attribution.category[live] == CATEGORIES.index(Category.ACTIVATION)]
    modules, ops = modules_of(history, rows), _ops(history, rows)
    return ActivationSplit(
        num_bytes=int(history.lifetimes.size_bytes[rows].sum()),
        by_role=_parts(history, rows, history.attribution.role[rows].astype(np.int64), _role),
        by_module=_parts(history, rows, modules, history.rank.text),
        by_op=_parts(history, rows, ops, history.rank.text),
        by_microbatch=_parts(history, rows, _microbatches(history, rows), str),
    )


def saved_for_backward(history: DeviceHistory) -> tuple[SavedForBackward, ...]:
    """Return what is kept for each backward when it begins, by distinct storage, in order of time.

    Parameters, buffers and inputs that autograd saved as well are not in these bytes: they are there anyway. Nothing
    where no activation is known to be kept, as in a snapshot.
    """
    if not history.moments.has_times or not np.any(history.attribution.role != ROLES.index(Role.NONE)):
        return ()
    phases, rows = history.rank.table("phases"), _outer_backwards(history)
    moments = history.moments.at_times(phases["start_ns"][rows])
    saved, output = (_level(history, role) for role in (Role.SAVED, Role.OUTPUT))
    inferred = _level(history, Role.SAVED, inferred_only=True)
    return tuple(
        SavedForBackward(
            step=int(phases["step"][row]),
            microbatch=int(phases["microbatch"][row]),
            start_ns=int(phases["start_ns"][row]),
            saved_bytes=int(saved[moment]),
            inferred_bytes=int(inferred[moment]),
            output_bytes=int(output[moment]),
        )
        for row, moment in zip(rows, moments, strict=True)
    )


def _outer_backwards(history: DeviceHistory) -> IntArray:
    """Return the rows of the phases that are a backward and in no other one, which checkpointing may nest, by start."""
    spans, phases = history.phases, history.rank.table("phases")
    is_backward = phases["phase"][spans.rows] == history.rank.string_id(Phase.BACKWARD.value)
    inside = np.zeros(len(is_backward), np.bool_)
    for position, parent in enumerate(spans.parent.tolist()):
        inside[position] = parent >= 0 and (is_backward[parent] or inside[parent])
    rows: IntArray = spans.rows[is_backward & ~inside]
    return rows


def _level(history: DeviceHistory, role: Role, *, inferred_only: bool = False) -> IntArray:
    """Return at each moment the bytes of activations of a role."""
    lifetimes, attribution = history.lifetimes, history.attribution
    chosen = (attribution.category == CATEGORIES.index(Category.ACTIVATION)) & (attribution.role == ROLES.index(role))
    rows = np.flatnonzero(chosen & ~_is_exact(attribution.decision) if inferred_only else chosen)
    return running_level(
        lifetimes.start[rows], lifetimes.in_use_end[rows], lifetimes.size_bytes[rows], len(history.moments)
    )


def _is_exact(decision: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    return np.isin(decision, [DECISIONS.index(one) for one in (Decision.OWNER, Decision.HOOK)])


def _ops(history: DeviceHistory, rows: IntArray) -> IntArray:
    """Return the string id of the operation that keeps each allocation; null where none is known."""
    saved_row = history.attribution.saved_row[rows]
    ops = np.append(history.rank.table("saved")["op"], NULL)
    found: IntArray = ops[np.where(saved_row == NULL, len(ops) - 1, saved_row)]
    return found


def _microbatches(history: DeviceHistory, rows: IntArray) -> IntArray:
    """Return the microbatch that each allocation was saved in, else the one it was made in; null where neither is."""
    saved_row = history.attribution.saved_row[rows]
    known = np.append(history.rank.table("saved")["microbatch"], NULL)
    found: IntArray = known[np.where(saved_row == NULL, len(known) - 1, saved_row)]
    if history.moments.has_times:
        phase = history.phases.innermost(history.moments.time_ns[history.lifetimes.start[rows]])
        made = np.append(history.rank.table("phases")["microbatch"], NULL)[phase]
        is_known = (phase >= 0) & ~history.lifetimes.is_initial[rows]
        found = np.where((found == NULL) & is_known, made, found)
    return found


def _role(code: int) -> str | None:
    return None if ROLES[code] is Role.NONE else ROLES[code].value


def _parts(
    history: DeviceHistory, rows: IntArray, key: IntArray, name_of: Callable[[int], str | None]
) -> tuple[ActivationPart, ...]:
    """Return the allocations by a key, largest part first; those without a key are a part without a name."""
    keys, code = np.unique(key, return_inverse=True)
    size_bytes = history.lifetimes.size_bytes[rows]
    totals, exact = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    np.add.at(totals, code, size_bytes)
    np.add.at(exact, code, np.where(_is_exact(history.attribution.decision[rows]), size_bytes, 0))
    counts = np.bincount(code, minlength=len(keys))
    return tuple(
        ActivationPart(
            name=None if keys[at] == NULL else name_of(int(keys[at])),
            num_bytes=int(totals[at]),
            exact_bytes=int(exact[at]),
            num_allocations=int(counts[at]),
        )
        for at in np.lexsort((keys, -totals))
    )
