"""Every fault that a device shows, each file of this room asked in turn.

In: histories of devices. Out: `Finding`s, in no order. A rule is silent wherever what it needs was not recorded.
"""

from __future__ import annotations

from collections.abc import Callable

from memtrace.analysis.advice.case import Case
from memtrace.analysis.advice.replayed import checked
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.faults.autocast_copies import autocast_copies
from memtrace.analysis.faults.batches import growing_batches, odd_batch
from memtrace.analysis.faults.evaluation import evaluation_outputs, evaluation_with_graph
from memtrace.analysis.faults.gradient_copies import buckets_beside_gradients, flat_copy_of_gradients
from memtrace.analysis.faults.kept_for_steps import kept_for_steps
from memtrace.analysis.faults.one_backward import one_backward
from memtrace.analysis.faults.one_fsdp_unit import one_fsdp_unit
from memtrace.analysis.faults.recomputation_off import recomputation_off
from memtrace.analysis.faults.second_copies import second_copies
from memtrace.analysis.faults.unstepped_gradients import unstepped_gradients
from memtrace.analysis.results.report import Finding

FAULTS: tuple[Callable[[Case], Finding | None], ...] = (
    odd_batch,
    growing_batches,
    evaluation_with_graph,
    evaluation_outputs,
    kept_for_steps,
    second_copies,
    unstepped_gradients,
    autocast_copies,
    recomputation_off,
    one_backward,
    flat_copy_of_gradients,
    buckets_beside_gradients,
    one_fsdp_unit,
)


def find_faults(history: DeviceHistory) -> tuple[Finding, ...]:
    """Return the faults of one device."""
    if not history.has_history:
        return ()
    case = Case(history)
    return checked(case, (finding for rule in FAULTS if (finding := rule(case)) is not None))
