"""What one device held at a moment that is named: categories, modules and stacks, as a report tells them of its peak.

In: `RankTrace`, a device, the name of a moment. Out: `AtMoment`.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.analysis.attribution.inferred_marks import with_inferred_marks
from memtrace.analysis.device.device_history import DeviceHistory, build_history, device_names
from memtrace.analysis.device.modules import modules_at
from memtrace.analysis.device.peak import end_state, moment_of, peak_between, peak_without_history, state_at
from memtrace.analysis.device.stacks import stacks_at
from memtrace.analysis.device.steps import StepSpan, step_spans
from memtrace.analysis.first_step.two_peaks import first_step_peak, steady_state_peak
from memtrace.analysis.results.report import ModuleRow, Peak, StackRow, State
from memtrace.errors import MemtraceError
from memtrace.store.trace import RankTrace

OF_STEP = ("step_peak", "step_end")
"""Moments of one step: where it is fullest, and after its last optimizer step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMoment:
    """One device at one moment."""

    state: State
    """A `Peak`, with its step and phase, where the moment is one."""
    modules: tuple[ModuleRow, ...]
    """By bytes live then, largest first; empty where none was marked, or where the moment was predicted."""
    stacks: tuple[StackRow, ...]
    """By bytes live then, largest first; empty where there is no history, or where the moment was predicted."""


def at_moment(rank: RankTrace, device: str, name: str, *, step: int | None = None) -> AtMoment:
    """Return what a device held at a moment; `step` is for the moments of a step.

    Raises:
        MemtraceError: the trace does not hold the moment.
    """
    rank = with_inferred_marks(rank)
    accelerators = [one for one in device_names(rank) if one != "cpu"]
    history = build_history(rank, device, owns_marks=accelerators == [device])
    state, moment = _found(history, name, step)
    return AtMoment(
        state=state,
        modules=() if moment is None else modules_at(history, moment),
        stacks=() if moment is None else stacks_at(history, moment),
    )


def _found(history: DeviceHistory, name: str, step: int | None) -> tuple[State, int | None]:
    """Return the state at a moment of this name, and the moment itself where it is one of the history."""
    last = history.last_moment if history.has_history else None
    if name == "end":
        return end_state(history), last
    if name == "peak":
        if last is None:
            return peak_without_history(end_state(history)), None
        return _with_moment(history, peak_between(history, 0, last))
    spans = step_spans(history)
    if name in OF_STEP:
        span = _span_of(list(spans.values()), step, name)
        if name == "step_end":
            return state_at(history, span.last), span.last
        return _with_moment(history, peak_between(history, span.first, span.last))
    peak = (
        first_step_peak(history, spans)
        if name == "first_step_peak"
        else steady_state_peak(history, spans, capacity_bytes=None)
    )
    if peak is None:
        raise MemtraceError(f"{name} is not known: no such step was recorded", hint="ask for `peak` or `end`")
    return _with_moment(history, peak)


def _with_moment(history: DeviceHistory, peak: Peak) -> tuple[Peak, int | None]:
    return peak, None if peak.predicted else moment_of(history, peak)


def _span_of(spans: list[StepSpan], step: int | None, name: str) -> StepSpan:
    if step is None:
        raise MemtraceError(f"{name} is a moment of a step, and no step was named", hint="name its number, from 1")
    found = next((span for span in spans if span.step == step), None)
    if found is None:
        known = ", ".join(str(span.step) for span in spans if span.step > 0) or "none"
        raise MemtraceError(f"step {step} was not recorded", hint=f"steps that were: {known[:200]}")
    return found
