"""One run of `memtrace fit`: recorded, shown on a terminal as it goes, read, and judged unusable in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from memtrace.analysis.results.report import Report
    from memtrace.forecast.fitting.results import Measured
    from memtrace.launch.trial import Trial


def measure_run(command: Sequence[str], size: int, num_steps: int, *, log: Path) -> Measured:
    """Run a command that trains with one micro-batch and return what its recording says.

    What it prints goes to `log`, which stays where the run is of no use.

    Raises:
        MemtraceError: it failed, and not for want of memory.
        UsageError: it ended before it had made its steps.
    """
    import tempfile

    from memtrace.analysis.report import analyze
    from memtrace.forecast.fitting.measure import died_of_memory, measure, says_out_of_memory
    from memtrace.launch.trial import run_trial
    from memtrace.store.reading.read import read_trace

    with tempfile.TemporaryDirectory(prefix=".memtrace-fit-", dir=log.parent) as folder:
        trace = Path(folder) / "trace.json"
        with _bar(size, num_steps) as on_step:
            trial = run_trial(command, trace, log, num_steps=num_steps, on_step=on_step)
        report = analyze(read_trace((trace,))) if trace.exists() else None
    found = None if report is None else measure(report, num_steps, was_ended=trial.was_ended)
    if found is None and trial.status and not trial.was_ended and says_out_of_memory(trial.output):
        found = died_of_memory(report)
    if found is None:
        raise _unusable(trial, report, size, num_steps, log)
    log.unlink(missing_ok=True)
    return found


def _unusable(trial: Trial, report: Report | None, size: int, num_steps: int, log: Path) -> Exception:
    """Return why a run says nothing."""
    from memtrace.errors import MemtraceError
    from memtrace.forecast.fitting.measure import num_steps_of

    run, hint = f"the run with micro-batch {size}", f"what it printed is in {log}"
    if trial.status and not trial.was_ended:
        last = next((line.strip() for line in reversed(_own_lines(trial.output)) if line.strip()), "it printed nothing")
        how = f"exit code {trial.status}" if trial.status > 0 else f"signal {-trial.status}"
        return MemtraceError(f"{run} failed ({how}): {last[:300]}", hint=hint)
    if report is None:
        return MemtraceError(f"nothing was recorded of {run}: is it torch that trains?", hint=hint)
    made = num_steps_of(report.ranks)
    if made >= num_steps:
        return MemtraceError(f"no memory was recorded in the steps of {run}", hint=hint)
    steps = f"{made} optimizer step{'' if made == 1 else 's'}"
    return click.UsageError(f"{run} ended after {steps} and {num_steps} are needed: let it train longer ({hint})")


def _own_lines(printed: str) -> list[str]:
    """Return the lines that are the program's, without those in which `memtrace record` says what it wrote."""
    ours = ("Wrote ", "Next: ", "memtrace: ", "(`python -I`")
    return [line for line in printed.splitlines() if not line.startswith(ours)]


def _bar(size: int, num_steps: int) -> Any:
    """Return a context that gives a function to be told of steps: a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return nullcontext(_ignore)
    return _Bar(size, num_steps)


def _ignore(made: int) -> None:
    """Show nothing."""


class _Bar:
    """A progress bar over the steps of one run, on standard error."""

    def __init__(self, size: int, num_steps: int) -> None:
        self._bar = click.progressbar(length=num_steps, label=f"micro-batch {size}", file=sys.stderr, show_eta=False)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.__enter__()
        return lambda made: self._bar.update(made - self._bar.pos)

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(None, None, None)
