"""Where a moment in time stands in the training loop: its step, phase and innermost module scope.

In: `DeviceHistory` and Unix times. Out: names, or `None` where nothing was marked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.schema.names import Phase
from memtrace.store.columns import NULL, IntArray


def step_at(history: DeviceHistory, time_ns: int) -> int | None:
    """Return the step that a time belongs to; `None` without steps, or after the last one ended."""
    steps = history.rank.table("steps")
    if not len(steps):
        return None
    # What happens in the very nanosecond in which a step ends still belongs to it.
    row = int(np.searchsorted(steps["start_ns"], time_ns, side="left")) - 1
    if row < 0:
        return 0
    end_ns = int(steps["end_ns"][row])
    return None if end_ns != NULL and time_ns > end_ns else int(steps["step"][row])


def phase_at(history: DeviceHistory, time_ns: int) -> str | None:
    """Return the innermost phase at a time; what no phase covers in the midst of an evaluation is of that."""
    row = history.phases.at(time_ns)
    if row < 0 and np.any((history.evaluations[:, 0] <= time_ns) & (history.evaluations[:, 1] > time_ns)):
        return Phase.EVALUATION.value
    return None if row < 0 else history.rank.text(int(history.rank.table("phases")["phase"][row]))


def module_at(history: DeviceHistory, time_ns: int) -> str | None:
    """Return the path of the innermost module scope at a time."""
    row = history.scopes.at(time_ns)
    return None if row < 0 else history.rank.text(int(history.rank.table("scopes")["module"][row]))


def modules_of(history: DeviceHistory, allocations: IntArray) -> IntArray:
    """Return for each allocation the string id of the innermost module in which it was allocated; null outside any.

    Allocations that were live before the history began have no known module.
    """
    modules = np.full(len(allocations), NULL, np.int64)
    scopes = history.rank.table("scopes")
    known: npt.NDArray[np.intp] = np.flatnonzero(~history.lifetimes.is_initial[allocations])
    if len(scopes) and len(known) and history.moments.has_times:
        times = history.moments.time_ns[history.lifetimes.start[allocations[known]]]
        rows = history.scopes.innermost(times)
        modules[known] = np.where(rows >= 0, scopes["module"][rows], NULL)
    return modules
