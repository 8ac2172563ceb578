"""Programs that were recorded wrongly once, and what is right of each: its steps, owners, inputs, what is found.

Of those that are not here, some try the recorder and not the report (forks, file descriptors, limits, ten thousand
parameters), one dies (`memtrace record` says of what), and one needs modules beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport, Report
from memtrace.schema.names import Category
from memtrace.store.reading.read import read_trace

# Last is what stays in the process: a wrapper of all modules, and a compiler, with which the CPU's recorder leaves out
# lines.
RUNS = ("alt", "closure", "crit", "crit_f", "ema", "two_modules", "zg:5", "zg:6", "wraps", "jit")
_FLOAT = 4
_PASSES = ("forward", "backward", "optimizer")
Reports = Callable[[str], Report]


def reports_of(folder: Path) -> Reports:
    """Return a function that makes the report of a run."""
    return lambda name: analyze(read_trace([folder / f"{name}.json"]))


def _rank(reports: Reports, name: str) -> RankReport:
    (rank,) = reports(name).ranks
    return rank


def _linear(inputs: int, outputs: int) -> int:
    return _FLOAT * (inputs + 1) * outputs


def _check_steps(rank: RankReport, number: int, passes_of: Callable[[int], tuple[str, ...]]) -> None:
    assert [step.step for step in rank.steps] == list(range(1, number + 1))
    for step in rank.steps:
        assert step.end_ns is not None
        if step.recorded:
            assert tuple(one.phase for one in step.phases) == passes_of(step.step)
            assert all(one.end_ns is not None for one in step.phases)


def _alternating(reports: Reports) -> None:
    """Two optimizers, of which the second steps every other time, make one step."""
    rank = _rank(reports, "alt")
    _check_steps(rank, 6, lambda step: 2 * _PASSES if step % 2 else _PASSES)
    parameters = _linear(64, 64) + _linear(64, 1)
    assert rank.peak.exact_by_category[Category.PARAMETER] == parameters
    assert rank.peak.exact_by_category[Category.GRADIENT] == parameters


def _closure(reports: Reports) -> None:
    """A step that drives the passes itself has them."""
    rank = _rank(reports, "closure")
    _check_steps(rank, 4, lambda _: ("optimizer", "forward", "backward"))
    assert rank.peak.exact_by_category[Category.GRADIENT] == _linear(64, 64)


def _criterion(reports: Reports) -> None:
    """A loss is no model: what it is given by one is no input, and as much is told as of a function."""
    peak, of_function = (_rank(reports, name).peak for name in ("crit", "crit_f"))
    rows, logits = _FLOAT * 256 * 64, _FLOAT * 256 * 4000
    labels = 8 * 256
    assert rows <= peak.by_category[Category.INPUT] <= rows + labels
    assert peak.exact_by_category[Category.ACTIVATION] == of_function.exact_by_category[Category.ACTIVATION] == logits
    for name in ("crit", "crit_f"):
        assert reports(name).findings[0].slug == "large-logits"


def _modules_in_a_row(reports: Reports) -> None:
    """What one module hands to the next is no input."""
    peak = _rank(reports, "two_modules").peak
    assert peak.exact_by_category[Category.INPUT] == _FLOAT * 256 * 512
    assert peak.exact_by_category[Category.PARAMETER] == 2 * _linear(512, 512)


def _gap(reports: Reports) -> None:
    """A gap in the recording changes nothing of what is found."""
    found = [reports(name).findings[0] for name in ("zg-5", "zg-6")]
    for one in found:
        assert one.slug == "gradients-through-forward"
        assert one.where is not None
        assert one.where["line"] == 7
    assert found[0].title == found[1].title


def _average(reports: Reports) -> None:
    """An average of the weights is no copy that nothing writes to."""
    report = reports("ema")
    assert "second-copy" not in [one.slug for one in report.findings]
    assert report.ranks[0].peak.exact_by_category[Category.PARAMETER] == _linear(256, 256) + _linear(256, 8)


def _wrapped(reports: Reports) -> None:
    """A module that is traced, or called through a wrapper of the program, is one."""
    for name, parameters in (("jit", _linear(8, 16) + _linear(16, 4)), ("wraps", _linear(8, 4))):
        rank = _rank(reports, name)
        _check_steps(rank, 2, lambda _: _PASSES)
        assert rank.peak.exact_by_category[Category.PARAMETER] == parameters


CHECKS = (_alternating, _closure, _criterion, _modules_in_a_row, _gap, _average, _wrapped)
