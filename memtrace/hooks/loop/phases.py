"""The clock of phases: which stretch of the training loop is running, told from the calls that torch makes.

Phases nest: backward, optimizer and data are spans with a beginning and an end; forward runs from the first module
call until something else begins (so that a loss computed outside any module belongs to it), and may run inside an
optimizer step (a closure). What no span covers is `other`.
"""

from __future__ import annotations

from collections.abc import Callable

from memtrace.hooks.parts.chunk import Row
from memtrace.schema.names import Phase


class _Span:
    __slots__ = ("detail", "forward_ns", "phase", "start_ns")

    def __init__(self, phase: Phase, start_ns: int, detail: str | None) -> None:
        self.phase = phase
        self.start_ns = start_ns
        self.detail = detail
        self.forward_ns: int | None = None


class PhaseClock:
    """Emits one row of the `phases` table whenever a phase ends. Used by the training thread alone."""

    def __init__(self, emit: Callable[[Row], None], on_change: Callable[[Phase, int], None] | None = None) -> None:
        """Begin outside any phase; `on_change` is told which phase runs from a time on."""
        self._emit = emit
        self._on_change = on_change
        self._spans = [_Span(Phase.OTHER, 0, None)]
        self._step = 0
        self._microbatch = 0
        self._backward_done = False
        self._begun = False
        self._first_of_next = 0
        self._begun_before = False

    @property
    def current(self) -> Phase:
        """The innermost phase that runs now."""
        span = self._spans[-1]
        return Phase.FORWARD if span.forward_ns is not None else span.phase

    @property
    def inside(self) -> bool:
        """Whether a span (backward, optimizer, data, evaluation) is open."""
        return len(self._spans) > 1

    @property
    def microbatch(self) -> int:
        """Number of the current microbatch in the step, from 0."""
        return self._microbatch

    @property
    def num_microbatches(self) -> int:
        """Forward and backward passes that the step has completed."""
        return self._microbatch + self._backward_done

    @property
    def has_backward(self) -> bool:
        """Whether a backward pass ended since the last forward began."""
        return self._backward_done

    @property
    def has_begun(self) -> bool:
        """Whether a forward or backward has run in the step, or in what may be the next one."""
        return self._begun

    def start_step(self, step: int) -> None:
        """Count the microbatches of a new step from 0."""
        self._step = step
        self._microbatch = 0
        self._backward_done = False
        self._begun = False

    def may_end_step(self) -> None:
        """Note that the next step may begin here; `num_microbatches` are those up to now."""
        self._microbatch, self._backward_done = self.num_microbatches, False
        self._first_of_next = self._microbatch
        self._begun_before, self._begun = self._begun, False

    def goes_on(self) -> None:
        """Note that it did not."""
        self._begun = self._begun or self._begun_before

    def start_step_late(self, step: int) -> None:
        """Count the microbatches of a new step, which began when it was said that it may, from 0."""
        self._step = step
        self._microbatch -= self._first_of_next

    def forward(self, now_ns: int) -> None:
        """Note that training forward runs; it lasts until another phase begins."""
        span = self._spans[-1]
        if span.forward_ns is None and span.phase in (Phase.OTHER, Phase.OPTIMIZER):
            span.forward_ns = now_ns
            self._begun = True
            # The first forward after a backward starts the next microbatch; more backwards of one forward do not.
            if self._backward_done:
                self._microbatch += 1
                self._backward_done = False
            self._changed(now_ns)

    def begin(self, phase: Phase, now_ns: int, detail: str | None = None) -> None:
        """Open a span; a forward that runs ends here."""
        self._end_forward(now_ns)
        self._spans.append(_Span(phase, now_ns, detail))
        self._begun = self._begun or phase is Phase.BACKWARD
        self._changed(now_ns)

    def end(self, now_ns: int) -> None:
        """Close the innermost span."""
        if not self.inside:
            return
        self._end_forward(now_ns)
        span = self._spans.pop()
        self._emit((str(span.phase), self._step, self._microbatch, span.start_ns, now_ns, span.detail))
        # A nested backward (reentrant checkpointing) does not end the microbatch.
        if span.phase is Phase.BACKWARD and self._spans[-1].phase is not Phase.BACKWARD:
            self._backward_done = True
        self._changed(now_ns)

    def abandon(self, phase: Phase, now_ns: int) -> None:
        """Close the innermost span of a phase, which an exception has ended, and all that it left open inside."""
        while any(span.phase is phase for span in self._spans):
            is_last = self._spans[-1].phase is phase
            self.end(now_ns)
            if is_last:
                return

    def flush(self) -> None:
        """Emit every open phase with the end unknown: the program ends here, or its recording does."""
        for span in self._spans:
            if span.phase is not Phase.OTHER or span.detail is not None:
                self._emit((str(span.phase), self._step, self._microbatch, span.start_ns, None, span.detail))
            if span.forward_ns is not None:
                self._emit((str(Phase.FORWARD), self._step, self._microbatch, span.forward_ns, None, None))

    def _changed(self, now_ns: int) -> None:
        if self._on_change is not None:
            self._on_change(self.current, now_ns)

    def _end_forward(self, now_ns: int) -> None:
        span = self._spans[-1]
        if span.forward_ns is not None:
            self._emit((str(Phase.FORWARD), self._step, self._microbatch, span.forward_ns, now_ns, None))
            span.forward_ns = None
