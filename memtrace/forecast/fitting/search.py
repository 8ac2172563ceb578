"""The largest micro-batch that fits, by real runs: two small ones, a line through them, confirmation, bisection.

In: the sizes that may be tried, a capacity, and a function that runs one size and says what it measured. Out: `Fit`.
Which size comes next follows from the runs so far and nothing else, so that a search can go on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memtrace.errors import MemtraceError
from memtrace.forecast.fitting.results import Fit, FitRun, Measured
from memtrace.units import format_bytes

LARGEST = 1 << 20
"""No larger micro-batch is tried where no maximum is given."""
_GROWTH = 16
"""A line through two small runs is not followed further than this at once: a wrong one would cost a very long run."""
_FLAT = 1024
"""Sizes that differ by this factor and need the same memory say that the command does not use its micro-batch."""

Run = Callable[[int], Measured]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which sizes may be tried, and what they must fit in."""

    smallest: int = 1
    largest: int | None = None
    multiple: int = 1
    """Every size is a multiple of this."""
    capacity_bytes: int | None = None
    """`None`: the memory of the device that the runs use, where a run fits if it does not run out of it."""

    def __post_init__(self) -> None:
        """Refuse a range without sizes."""
        if min(self.smallest, self.multiple) < 1 or self.first > self.last:
            most = LARGEST if self.largest is None else self.largest
            raise MemtraceError(f"no multiple of {self.multiple} lies between {self.smallest} and {most}")

    @property
    def first(self) -> int:
        """The smallest size that may be tried.

        >>> Question(smallest=5, multiple=4).first
        8
        """
        return -(-self.smallest // self.multiple) * self.multiple

    @property
    def last(self) -> int:
        """The largest size that may be tried."""
        return (LARGEST if self.largest is None else self.largest) // self.multiple * self.multiple


def find_fit(
    question: Question,
    run: Run,
    *,
    done: Sequence[tuple[int, Measured]] = (),
    on_run: Callable[[FitRun], None] = lambda _: None,
) -> Fit:
    """Return the largest size that fits; `done` are runs of an earlier search, `on_run` is told of each new one.

    >>> def line(size: int) -> Measured:
    ...     peak = 1000 + 10 * size
    ...     return Measured(
    ...         peak_bytes=peak, needed_bytes=peak, first_step_peak_bytes=peak, device_bytes=None, out_of_memory=False
    ...     )
    >>> found = find_fit(Question(capacity_bytes=1234), line)
    >>> found.micro_batch, [run.micro_batch for run in found.runs]
    (23, [1, 2, 23, 24])

    Raises:
        MemtraceError: the capacity is not known, or memory does not depend on the size.
    """
    runs = [_judged(question, size, measured) for size, measured in done]
    while (size := next_size(question, runs)) is not None:
        runs.append(_judged(question, size, run(size)))
        on_run(runs[-1])
    low, high = _bracket(runs)
    return Fit(
        micro_batch=None if low is None else low.micro_batch,
        steady_state_peak_bytes=None if low is None else low.measured.peak_bytes,
        capacity_bytes=_capacity(question, runs),
        runs=tuple(runs),
        notes=tuple(_notes(question, runs, low, high)),
    )


def _judged(question: Question, size: int, measured: Measured) -> FitRun:
    fits = not measured.out_of_memory
    if fits and question.capacity_bytes is not None:
        fits = measured.needed_bytes is not None and measured.needed_bytes <= question.capacity_bytes
    return FitRun(micro_batch=size, measured=measured, fits=fits)


def _capacity(question: Question, runs: Sequence[FitRun]) -> int:
    """Return what the runs must fit in."""
    if question.capacity_bytes is not None:
        return question.capacity_bytes
    devices = [run.measured.device_bytes for run in runs if run.measured.device_bytes is not None]
    if not devices:
        hint = "say what must be fitted: --capacity 16GiB, or --gpu with the name of a GPU"
        raise MemtraceError("the run was on the CPU, which does not say what memory there is for it", hint=hint)
    return min(devices)


def next_size(question: Question, runs: Sequence[FitRun]) -> int | None:
    """Return the size to try next; `None` where the runs so far tell the answer.

    Raises:
        MemtraceError: as `find_fit`.
    """
    if not runs:
        return question.first
    capacity = _capacity(question, runs)
    low, high = _bracket(runs)
    if low is None:
        return None
    least = low.micro_batch + question.multiple
    most = question.last if high is None else high.micro_batch - question.multiple
    if least > most:
        return None
    if high is None and len(runs) == 1:
        return min(2 * question.first, most)
    if high is None:
        most = min(most, _GROWTH * low.micro_batch // question.multiple * question.multiple)
        _check_growth(runs, low)
    if high is not None and _num_stalls(runs) >= 2:
        guess = (low.micro_batch + high.micro_batch) // 2
    else:
        guess = _on_the_line(runs, low, high, capacity)
    return max(least, min(most, guess // question.multiple * question.multiple))


def _bracket(runs: Sequence[FitRun]) -> tuple[FitRun | None, FitRun | None]:
    """Return the smallest run that does not fit, and before it the largest below it that does."""
    high = min((run for run in runs if not run.fits), key=lambda run: run.micro_batch, default=None)
    below = [run for run in runs if run.fits and (high is None or run.micro_batch < high.micro_batch)]
    return max(below, key=lambda run: run.micro_batch, default=None), high


def _on_the_line(runs: Sequence[FitRun], low: FitRun, high: FitRun | None, capacity: int) -> int:
    """Return the size that a line through two runs gives the capacity: across the answer, or up to it."""
    other = high if high is not None and high.measured.needed_bytes is not None else _below(runs, low)
    if other is None:
        # Only where the second run did not fit, and told nothing: there is nothing but the middle.
        assert high is not None
        return (low.micro_batch + high.micro_batch) // 2
    rise = (other.measured.needed_bytes or 0) - (low.measured.needed_bytes or 0)
    width = other.micro_batch - low.micro_batch
    left = capacity - (low.measured.needed_bytes or 0)
    if rise * width <= 0:
        # Flat: at small sizes the optimizer's step, which does not depend on them, may be the peak.
        return 4 * low.micro_batch if high is None else (low.micro_batch + high.micro_batch) // 2
    return low.micro_batch + left * width // rise


def _below(runs: Sequence[FitRun], low: FitRun) -> FitRun | None:
    fitting = [run for run in runs if run.fits and run.micro_batch < low.micro_batch]
    return max(fitting, key=lambda run: run.micro_batch, default=None)


def _num_stalls(runs: Sequence[FitRun]) -> int:
    """Return how many runs in a row, up to the last, left more than half of what was between fitting and not."""
    stalls, before = 0, None
    for count in range(1, len(runs) + 1):
        low, high = _bracket(runs[:count])
        width = None if low is None or high is None else high.micro_batch - low.micro_batch
        if width is not None and before is not None:
            stalls = stalls + 1 if 2 * width > before else 0
        before = width
    return stalls


def _check_growth(runs: Sequence[FitRun], low: FitRun) -> None:
    first = min(runs, key=lambda run: run.micro_batch)
    is_flat = (low.measured.needed_bytes or 0) <= (first.measured.needed_bytes or 0)
    if is_flat and low.micro_batch >= _FLAT * first.micro_batch:
        message = f"a micro-batch of {low.micro_batch} needs no more memory than one of {first.micro_batch}"
        raise MemtraceError(message, hint="does the command use {mbs} as its batch size? --max limits what is tried")


def _notes(question: Question, runs: Sequence[FitRun], low: FitRun | None, high: FitRun | None) -> list[str]:
    notes = []
    if low is not None and high is None:
        notes.append(f"No larger micro-batch than {question.last} was to be tried.")
    if low is not None and question.capacity_bytes is not None:
        first = low.measured.first_step_peak_bytes or 0
        if first > question.capacity_bytes:
            notes.append(
                f"The first step alone needed more, {format_bytes(first)}: only the steps after it fit. If nothing in "
                "it can do with less, the run will not get beyond it."
            )
    device = next((run.measured.device_bytes for run in runs if run.measured.device_bytes), None)
    asked = question.capacity_bytes
    if high is not None and high.measured.out_of_memory and asked is not None and (device is None or device < asked):
        notes.append(
            f"A micro-batch of {high.micro_batch} ran out of the memory of this machine: with the capacity that was "
            "asked about, a larger one may fit."
        )
    return notes
