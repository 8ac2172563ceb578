"""The clock of phases: which stretch of the training loop is running, told from the calls that torch makes.

Phases nest: backward, optimizer and data are spans with a beginning and an end; forward runs from the first module
call until something else begins (so that a loss computed outside any module belongs to it), and may run inside an
optimizer step (a closure). Evaluation runs while a module does, and on until data is asked for, if that comes next.
What may be evaluation turns out to be a forward if a backward comes next. What no span covers is `other`.
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


class _Evaluation:
    __slots__ = ("detail", "end_ns", "may_be_forward", "start_ns")

    def __init__(self, start_ns: int, *, may_be_forward: bool) -> None:
        self.start_ns = start_ns
        self.may_be_forward = may_be_forward
        self.detail = WITH_GRAPH if may_be_forward else None
        self.end_ns: int | None = None


WITH_GRAPH = "with a graph"
"""Detail of an evaluation whose gradients nobody had switched off."""


class PhaseClock:
    """Emits one row of the `phases` table whenever a phase ends. Used by the training thread alone."""

    def __init__(self, emit: Callable[[Row], None], on_change: Callable[[Phase, int], None] | None = None) -> None:
        """Begin outside any phase; `on_change` is told which phase runs from a time on."""
        self._emit = emit
        self._on_change = on_change
        self._spans = [_Span(Phase.OTHER, 0, None)]
        self._evaluation: _Evaluation | None = None
        self._step = 0
        self._microbatch = 0
        self._backward_done = False
        self._begun = False
        self._first_of_next = 0
        self._begun_before = False

    @property
    def current(self) -> Phase:
        """The innermost phase that runs now."""
        if self._evaluation is not None and self._evaluation.end_ns is None:
            return Phase.EVALUATION
        span = self._spans[-1]
        return Phase.FORWARD if span.forward_ns is not None else span.phase

    @property
    def runs(self) -> Phase | None:
        """The phase in whose midst a module is called: an evaluation also when its module has ended; or `None`."""
        if self._evaluation is not None:
            return Phase.EVALUATION
        return None if self.current is Phase.OTHER else self.current

    @property
    def may_be_forward(self) -> bool:
        """Whether an evaluation is the last that ran, and will have been a forward if a backward comes next."""
        return self._evaluation is not None and self._evaluation.may_be_forward

    @property
    def inside(self) -> bool:
        """Whether a span (backward, optimizer, data) is open."""
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
        self._settle(Phase.OTHER, None)
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
        self._settle(Phase.FORWARD, now_ns)
        span = self._spans[-1]
        if span.forward_ns is None and span.phase in (Phase.OTHER, Phase.OPTIMIZER):
            self._begin_forward(now_ns)
            self._changed(now_ns)

    def _begin_forward(self, start_ns: int) -> None:
        self._spans[-1].forward_ns = start_ns
        self._begun = True
        # The first forward after a backward starts the next microbatch; more backwards of one forward do not.
        if self._backward_done:
            self._microbatch += 1
            self._backward_done = False

    def evaluate(self, now_ns: int, *, may_be_forward: bool = False) -> None:
        """Note that a module is evaluated, or perhaps begins a training forward."""
        self._settle(Phase.EVALUATION, now_ns)
        self._end_forward(now_ns)
        self._evaluation = _Evaluation(now_ns, may_be_forward=may_be_forward)
        self._changed(now_ns)

    def module_ended(self, now_ns: int) -> None:
        """Note that a module has ended that was called from outside any other, and with it evaluation if that ran."""
        if self._evaluation is not None:
            self._evaluation.end_ns = now_ns
            self._changed(now_ns)

    def _settle(self, following: Phase, now_ns: int | None) -> None:
        """Emit the evaluation before, now that it is known what comes next."""
        found, self._evaluation = self._evaluation, None
        if found is None:
            return
        if following is Phase.BACKWARD and found.may_be_forward:
            self._begin_forward(found.start_ns)
            return
        is_all = found.end_ns is None or following is Phase.DATA
        end_ns = now_ns if is_all else found.end_ns
        self._emit((str(Phase.EVALUATION), self._step, self._microbatch, found.start_ns, end_ns, found.detail))

    def begin(self, phase: Phase, now_ns: int, detail: str | None = None) -> None:
        """Open a span; a forward that runs ends here."""
        self._settle(phase, now_ns)
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
        self._settle(Phase.OTHER, None)
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
