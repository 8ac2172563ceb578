"""What came of one configuration, and by how much its prediction is off."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.predictions.cases import Case
from benchmarks.predictions.runs import Figures, Level, Probe, predict, probe, record
from memtrace.errors import MemtraceError
from memtrace.schema.options import PredictOptions

Measure = Callable[[Figures], int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One configuration: its prediction in full, and what that is compared with."""

    case: Case
    full: Figures | None = None
    predicted: Figures | None = None
    """What is compared: the prediction in full on a GPU, that of the reduced size on the CPU."""
    real: Figures | None = None
    probes: tuple[Probe, ...] = ()
    failure: str | None = None
    """Why there is no comparison."""
    seconds: float = 0.0


def on_gpu(case: Case, gpu: PredictOptions) -> Outcome:
    """Predict a configuration and run it on the GPU."""
    return _outcome(case, lambda folder: _on_gpu(case, gpu, folder))


def on_cpu(case: Case, gpu: PredictOptions) -> Outcome:
    """Predict a configuration, and predict and run it at its reduced size."""
    return _outcome(case, lambda folder: _on_cpu(case, gpu, folder))


def _outcome(case: Case, run: Callable[[Path], Outcome]) -> Outcome:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        try:
            found = run(Path(name))
        except (MemtraceError, RuntimeError, OSError) as error:
            found = Outcome(case=case, failure=f"{type(error).__name__}: {' '.join(str(error).split())[-400:]}")
    values = {name: getattr(found, name) for name in ("case", "full", "predicted", "real", "probes", "failure")}
    return Outcome(**values, seconds=time.monotonic() - began)


def _on_gpu(case: Case, gpu: PredictOptions, folder: Path) -> Outcome:
    predicted, rank = predict(case, gpu, folder)
    try:
        real = record(case, folder, "cuda")
    except RuntimeError as error:
        return Outcome(case=case, full=predicted, failure=str(error))
    reserved = max(predicted.first.reserved_bytes or 0, predicted.steady.reserved_bytes or 0)
    probes = probe(case, rank, reserved) if case.probes else []
    return Outcome(case=case, full=predicted, predicted=predicted, real=real, probes=tuple(probes))


def _on_cpu(case: Case, gpu: PredictOptions, folder: Path) -> Outcome:
    full, _ = predict(case, gpu, folder)
    predicted, _ = predict(case.reduced(), gpu, folder)
    return Outcome(case=case, full=full, predicted=predicted, real=record(case.reduced(), folder, "cpu"))


MEASURES: Mapping[str, Measure] = {
    "allocated, steady": lambda one: one.steady.allocated_bytes,
    "allocated, step 1": lambda one: one.first.allocated_bytes,
    "reserved, steady": lambda one: one.steady.reserved_bytes,
    "reserved, step 1": lambda one: one.first.reserved_bytes,
}
"""What is compared on a GPU."""


def error_pct(outcome: Outcome, measure: Measure) -> float | None:
    """Return the signed error of a prediction in percent; a minus is an under-estimate."""
    if outcome.predicted is None or outcome.real is None:
        return None
    predicted, real = measure(outcome.predicted), measure(outcome.real)
    return None if predicted is None or not real else (predicted - real) / real * 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The errors of one measure over all configurations that could be compared."""

    num_compared: int
    median_pct: float
    """Of their sizes."""
    worst_pct: float
    worst: str
    """Name of that configuration."""
    num_under: int
    """Those in which the prediction is too low."""


def summary(outcomes: Iterable[Outcome], measure: Measure) -> Summary | None:
    """Return the errors of one measure; `None` where nothing could be compared."""
    errors = {one.case.name: error for one in outcomes if (error := error_pct(one, measure)) is not None}
    if not errors:
        return None
    worst = max(errors, key=lambda name: abs(errors[name]))
    return Summary(
        num_compared=len(errors),
        median_pct=statistics.median(map(abs, errors.values())),
        worst_pct=errors[worst],
        worst=worst,
        num_under=sum(error < 0 for error in errors.values()),
    )


def differences(predicted: Mapping[str, int], real: Mapping[str, int]) -> dict[str, int]:
    """Return what is not equal, by name, largest first; more than there was is positive.

    >>> differences({"a": 3, "b": 1}, {"a": 3, "c": 5})
    {'c': -5, 'b': 1}
    """
    found = {name: predicted.get(name, 0) - real.get(name, 0) for name in {*predicted, *real}}
    return dict(sorted(((name, size) for name, size in found.items() if size), key=lambda one: (-abs(one[1]), one[0])))


def category_errors(outcomes: Iterable[Outcome], level: Callable[[Figures], Level]) -> dict[str, list[tuple[int, str]]]:
    """Return by category the signed errors in bytes at a peak, each with its configuration."""
    found: dict[str, list[tuple[int, str]]] = {}
    for one in outcomes:
        if one.predicted is None or one.real is None:
            continue
        sides = level(one.predicted).by_category, level(one.real).by_category
        for name in sorted({*sides[0], *sides[1]}):
            found.setdefault(name, []).append((sides[0].get(name, 0) - sides[1].get(name, 0), one.case.name))
    return found


def verdicts(outcomes: Iterable[Outcome]) -> tuple[int, Sequence[str], Sequence[str]]:
    """Return how many runs with little memory there were, those that ran out unforeseen, and the false alarms."""
    probes = [(one.case.name, probe) for one in outcomes for probe in one.probes]
    missed = [name for name, probe in probes if probe.predicted_fits and not probe.fits]
    return len(probes), missed, [name for name, probe in probes if probe.fits and not probe.predicted_fits]
