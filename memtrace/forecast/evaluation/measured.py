"""What a table of layouts says was measured of them, and how well what is predicted agrees with it.

In: cells of rows; evaluated layouts. Out: numbers, `Agreement`. An error is predicted over measured, less one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.results import Agreement, EvaluatedLayout

TIME, MEMORY = "measured_tokens_per_second_per_gpu", "measured_peak_bytes"
MEASURED = (TIME, MEMORY)
"""Columns that a row may have beside those of a layout."""


def measured(row: Mapping[str, Any], name: str, number: int) -> float | None:
    """Return what row `number` measured; `None` for an empty cell.

    >>> measured({TIME: "5000"}, TIME, 1), measured({TIME: " "}, TIME, 1)
    (5000.0, None)

    Raises:
        MemtraceError: it is no number above 0.
    """
    cell = row.get(name)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        value = math.nan if isinstance(cell, bool) else float(str(cell)[:30])
    except ValueError:
        value = math.nan
    if not 0 < value < 1e18:
        raise MemtraceError(f"row {number:,}, column {name}: must be a number above 0, not {str(cell)[:60]!r}")
    return value


def without_measured(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a row that say how the layout is.

    >>> without_measured({"dp": 8, TIME: 5000})
    {'dp': 8}
    """
    return {name: cell for name, cell in row.items() if name not in MEASURED}


def agreements(rows: Sequence[EvaluatedLayout]) -> dict[str, Agreement]:
    """Return how predictions agree with what was measured: of `throughput` and `memory`, where two rows have it."""
    throughput = [
        (row.tokens_per_second_per_gpu, row.measured_tokens_per_second_per_gpu)
        for row in rows
        if row.measured_tokens_per_second_per_gpu is not None
    ]
    memory = [(row.peak_bytes, row.measured_peak_bytes) for row in rows if row.measured_peak_bytes is not None]
    pairs: dict[str, Sequence[tuple[float, float]]] = {"throughput": throughput, "memory": memory}
    return {name: _agreement(found) for name, found in pairs.items() if len(found) > 1}


def _agreement(pairs: Sequence[tuple[float, float]]) -> Agreement:
    errors = [predicted / truth - 1 for predicted, truth in pairs]
    return Agreement(
        runs=len(pairs),
        median_error=statistics.median(map(abs, errors)),
        worst_error=max(errors, key=abs),
        rank_correlation=rank_correlation([one for one, _ in pairs], [one for _, one in pairs]),
    )


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's correlation of the ranks of two columns; `None` where one of them is the same everywhere.

    Equal values share the mean of their ranks.

    >>> rank_correlation([1, 2, 3], [10, 30, 20]), rank_correlation([1, 1], [2, 3])
    (0.5, None)
    """
    ranks = _ranks(first), _ranks(second)
    spread = [statistics.pstdev(one) for one in ranks]
    if not all(spread):
        return None
    return round(statistics.correlation(*ranks), 12)


def _ranks(values: Sequence[float]) -> list[float]:
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values), start=1):
        places.setdefault(value, []).append(place)
    return [statistics.fmean(places[value]) for value in values]
