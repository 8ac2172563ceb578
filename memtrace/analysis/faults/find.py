"""Every fault that a device shows, each file of this room asked in turn.

In: histories of devices. Out: `Finding`s, in no order. A rule is silent wherever what it needs was not recorded.
"""

from __future__ import annotations

from collections.abc import Callable

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.faults.kept_for_steps import kept_for_steps
from memtrace.analysis.faults.second_copies import second_copies
from memtrace.analysis.faults.unstepped_gradients import unstepped_gradients
from memtrace.analysis.results.report import Finding

_RULES: tuple[Callable[[Case], Finding | None], ...] = (
    kept_for_steps,
    second_copies,
    unstepped_gradients,
)


def find_faults(history: DeviceHistory) -> tuple[Finding, ...]:
    """Return the faults of one device."""
    if not history.has_history:
        return ()
    case = Case(history)
    return tuple(finding for rule in _RULES if (finding := rule(case)) is not None)
