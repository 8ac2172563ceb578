"""What a recorded run says of its memory, for the search of `fit`: of all ranks, the one that needs the most.

In: the `Report` of a recording, and how many steps count. Out: `Measured`; `None` where there are not as many steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memtrace.analysis.results.report import RankReport, Report, StepResult
from memtrace.forecast.fitting.results import Measured

_EXCEPTIONS = ("OutOfMemory", "MemoryError")
_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory")
_KILLED = "host-kill-possible"


def measure(report: Report, num_steps: int, *, was_ended: bool = False) -> Measured | None:
    """Return what a recording says up to the `num_steps`-th step of its optimizer that was not skipped.

    `was_ended` says that the run was ended from outside after its steps, and was not killed for its memory.
    """
    if is_out_of_memory(report) or (not was_ended and _is_killed(report)):
        return died_of_memory(report)
    found = [one for device in _training_devices(report) if (one := needs_of(device, num_steps)) is not None]
    return max(found, key=lambda one: one.needed_bytes or 0, default=None)


def died_of_memory(report: Report | None) -> Measured:
    """Return that a run ran out of memory, of which there may be no recording."""
    devices = [] if report is None else _training_devices(report)
    return Measured(
        peak_bytes=None,
        needed_bytes=None,
        first_step_peak_bytes=None,
        device_bytes=_least(one.capacity_bytes for one in devices),
        out_of_memory=True,
    )


def is_out_of_memory(report: Report) -> bool:
    """Return whether a request failed for want of memory, whether the program caught that or died of it."""
    if any(rank.oom is not None and not rank.oom.predicted for rank in report.ranks):
        return True
    return any(_is_of_memory(rank.facts.get("exception")) for rank in report.ranks)


def _is_killed(report: Report) -> bool:
    """Return whether the host may have killed a process for want of memory."""
    of_devices = (note for rank in report.ranks for note in rank.warnings)
    return any(note.slug == _KILLED for note in (*report.warnings, *of_devices))


def says_out_of_memory(text: str) -> bool:
    """Return whether a program's output ends as that of one which ran out of memory.

    >>> says_out_of_memory("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
    True
    >>> says_out_of_memory("ValueError: memory format")
    False
    """
    return any(word in text.lower() for word in _WORDS) or any(name in text for name in _EXCEPTIONS)


def num_steps_of(ranks: Iterable[RankReport]) -> int:
    """Return how many steps of the optimizer ended and were not skipped, on the rank that has the most."""
    return max((len(_done(rank.steps)) for rank in ranks), default=0)


def _is_of_memory(exception: object) -> bool:
    if not isinstance(exception, dict):
        return False
    return says_out_of_memory(f"{exception.get('type')} {exception.get('message')}")


def _training_devices(report: Report) -> list[RankReport]:
    """Return the devices that train: accelerators where there are any, and of those the ones with steps."""
    accelerators = [one for one in report.ranks if one.device != "cpu"]
    return accelerators or list(report.ranks)


def _done(steps: Iterable[StepResult]) -> list[StepResult]:
    """Return the steps that changed the weights; one that a gradient scaler skipped made no states yet."""
    return [step for step in steps if step.step >= 1 and not step.skipped and step.end_ns is not None]


def needs_of(device: RankReport, num_steps: int, *, with_others: bool = True) -> Measured | None:
    """Return what a device needs up to the `num_steps`-th step; `None` where there are not as many.

    `with_others` counts what is held of it beside torch's allocator, as far as that was recorded.
    """
    done = _done(device.steps)
    if len(done) < num_steps:
        return None
    last = done[num_steps - 1].step
    steady = [step for step in device.steps if 2 <= step.step <= last]
    peak = _largest(_peak(step) for step in steady)
    if not peak:
        return None
    reserved = _largest(step.max_reserved_bytes for step in steady)
    beside = _largest(None if step.end is None else step.end.non_torch_bytes for step in steady) if with_others else 0
    first = device.first_step_peak
    return Measured(
        peak_bytes=peak,
        needed_bytes=max(peak, reserved or 0) + (beside or 0),
        first_step_peak_bytes=None if first is None else first.allocated_bytes or first.requested_bytes,
        device_bytes=device.capacity_bytes,
        out_of_memory=False,
    )


def _peak(step: StepResult) -> int | None:
    return step.peak_requested_bytes if step.peak_allocated_bytes is None else step.peak_allocated_bytes


def _largest(values: Iterable[int | None]) -> int | None:
    return max(_known(values), default=None)


def _least(values: Iterable[int | None]) -> int | None:
    return min(_known(values), default=None)


def _known(values: Iterable[int | None]) -> Sequence[int]:
    return [value for value in values if value is not None]
