"""Measured and predicted bytes side by side: rows of the table, medians and worst errors, coverage.

The rule by which the widths of ranges follow from measurements (`widths`) is here, and what it covers of a source whose
rows it has not seen.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.published.gpu_peaks import MeasuredPeak
from memtrace.forecast.prediction.results import Range

MIB = 1024**2
INSTALLED = "installed"
"""Instead of a source's libraries: those of the Python that runs the programs."""
OWN_TOOLS = {
    "pf": ("torch-preflight", "3.0 % / -12.4 % (allocated, its own rows)"),
    "lora": ("fitcheck-llm", "0.8 % / -3.1 % (allocated, its own rows)"),
    "xcnn": ("xMem", "3.5 % / -11.2 % (reserved, 11 rows)"),
    "xllm": ("xMem", "3.7 % / -9.6 % (reserved, 9 rows)"),
}
"""By kind of row: the tool that its source publishes, and that tool's median and worst error by its own account."""
HEAD = (
    "| row | engine | libraries | what | measured, MiB | predicted | error | range | holds it | other addresses | s |"
)
RULE = "|---|---|---|---|--:|--:|--:|--:|---|--:|--:|"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One quantity of one row, measured and predicted."""

    row: MeasuredPeak
    engine: str
    libraries: str
    """Name of a source's, or `INSTALLED`."""
    what: str
    true_bytes: int
    predicted: Range
    otherwise_bytes: int
    """Of the same requests, where the driver gives addresses from above instead of from below."""
    seconds: float

    @property
    def error_percent(self) -> float:
        """Signed: positive where too much is predicted."""
        return 100 * (self.predicted.predicted_bytes - self.true_bytes) / self.true_bytes

    @property
    def is_covered(self) -> bool:
        """Whether the stated range holds what was measured."""
        return self.predicted.low_bytes <= self.true_bytes <= self.predicted.high_bytes

    @property
    def more_permille(self) -> float:
        """How much more was measured than predicted, by what is predicted; negative where it was less."""
        return 1000 * (self.true_bytes - self.predicted.predicted_bytes) / self.predicted.predicted_bytes


def line_of(one: Figure) -> str:
    """Return a row of the table."""
    figures = f"{one.true_bytes / MIB:,.1f} | {one.predicted.predicted_bytes / MIB:,.1f} | {one.error_percent:+.2f} %"
    limits = f"{one.predicted.low_bytes / MIB:,.0f} – {one.predicted.high_bytes / MIB:,.0f}"
    covered = "yes" if one.is_covered else "**no**"
    otherwise = "" if one.otherwise_bytes == one.predicted.predicted_bytes else f"{one.otherwise_bytes / MIB:,.0f}"
    who = f"{one.row.name} | {one.engine} | {one.libraries} | {one.what}"
    return f"| {who} | {figures} | {limits} | {covered} | {otherwise} | {one.seconds:.0f} |"


def summary(figures: Sequence[Figure]) -> Iterator[str]:
    """Yield a line for each source, engine and quantity: median and worst error, coverage, the source's own tool."""
    yield "| rows | engine | libraries | quantity | n | median | worst | in the range | its own tool: median / worst |"
    yield "|---|---|---|---|--:|--:|--:|--:|---|"
    keys = sorted({(one.row.kind, one.engine, one.libraries, one.what) for one in figures})
    for kind, engine, libraries, what in keys:
        chosen = [
            one
            for one in figures
            if (one.row.kind, one.engine, one.libraries, one.what) == (kind, engine, libraries, what)
        ]
        yield f"| {kind} | {engine} | {libraries} | {what} | {_errors(chosen)} | {': '.join(OWN_TOOLS[kind])} |"


def totals(figures: Sequence[Figure], label: str) -> Iterator[str]:
    """Yield a line of the summary for each engine and quantity, over all rows."""
    for engine, what in sorted({(one.engine, one.what) for one in figures}):
        chosen = [one for one in figures if (one.engine, one.what) == (engine, what)]
        yield f"| all | {engine} | {label} | {what} | {_errors(chosen)} |  |"


def _errors(chosen: Sequence[Figure]) -> str:
    errors = [one.error_percent for one in chosen]
    covered = sum(one.is_covered for one in chosen)
    return f"{len(chosen)} | {statistics.median(map(abs, errors)):.2f} % | {max(errors, key=abs):+.2f} % | {covered}"


STEP_PERMILLE = 5
LEAST_PERMILLE = 10


def widths(figures: Sequence[Figure]) -> tuple[int, int]:
    """Return the widths of a range, below and above what is predicted, in permille of it.

    The rule: the most that any row was off to that side, rounded up to half a percent, and at least one percent.
    """
    below = max((-one.more_permille for one in figures), default=0.0)
    above = max((one.more_permille for one in figures), default=0.0)
    less, more = (max(math.ceil(side / STEP_PERMILLE) * STEP_PERMILLE, LEAST_PERMILLE) for side in (below, above))
    return less, more


def convolves(row: MeasuredPeak) -> bool:
    """Return whether the program of a row has convolutions, of which cuDNN decides."""
    return row.kind == "xcnn" or "resnet" in row.name


def held_out(figures: Sequence[Figure], source_of: dict[str, str]) -> Iterator[str]:
    """Yield what the rule covers of each source when the widths come from the rows of the others alone.

    `source_of` says by kind of row who measured it. Where no other source measured programs of that kind of program,
    the rows of all kinds stand for it.
    """
    yield "| engine | quantity | programs | left out | n | widths from the others | in the range | widths from all |"
    yield "|---|---|---|---|--:|--:|--:|--:|"
    keys = sorted({(one.engine, one.what, convolves(one.row), source_of[one.row.kind]) for one in figures})
    for engine, what, is_convolving, source in keys:
        alike = [one for one in figures if (one.engine, one.what) == (engine, what)]
        kind = [one for one in alike if convolves(one.row) == is_convolving]
        left_out = [one for one in kind if source_of[one.row.kind] == source]
        others = [one for one in kind if source_of[one.row.kind] != source]
        less, more = widths(others or [one for one in alike if source_of[one.row.kind] != source])
        covered = sum(-less <= one.more_permille <= more for one in left_out)
        programs = "with convolutions" if is_convolving else "without"
        given, all_rows = _shown((less, more)) + ("" if others else ", of all kinds"), _shown(widths(kind))
        yield f"| {engine} | {what} | {programs} | {source} | {len(left_out)} | {given} | {covered} | {all_rows} |"


def _shown(pair: tuple[int, int]) -> str:
    return f"-{pair[0] / 10:g} … +{pair[1] / 10:g} %"
