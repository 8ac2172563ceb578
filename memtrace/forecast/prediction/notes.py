"""What the trace of a prediction says of it: the range and the doubts, in its header and as notes that reports show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np

from memtrace.forecast.prediction.allocator_settings import settings_notes
from memtrace.forecast.prediction.results import Engine, GpuVerdict
from memtrace.schema.predicted import META
from memtrace.schema.tables import WARNINGS
from memtrace.store.columns import ColumnTable, dtype_of
from memtrace.store.trace import LoadWarning, RankTrace
from memtrace.units import format_bytes


def with_prediction(rank: RankTrace, verdict: GpuVerdict, engine: Engine) -> RankTrace:
    """Return a rank that says what is predicted, before what was noted while the program ran."""
    header = {**rank.header, "prediction": _header(verdict, engine)}
    return _with_warnings(replace(rank, header=header), [*_notes(rank, verdict, engine), *rank.warnings])


def _header(verdict: GpuVerdict, engine: Engine) -> dict[str, object]:
    return {
        "engine": engine.name,
        "engine_reason": engine.why,
        "gpu": verdict.gpu.name,
        "capability": list(verdict.gpu.capability),
        "fits": verdict.fits,
        "is_close": verdict.is_close,
        **{name: asdict(getattr(verdict.interval, name)) for name in ("allocated", "reserved", "context", "device")},
        "doubts": [asdict(one) for one in verdict.interval.doubts],
    }


def _notes(rank: RankTrace, verdict: GpuVerdict, engine: Engine) -> Iterator[LoadWarning]:
    interval = verdict.interval
    ranges = (
        f"{what} between {format_bytes(one.low_bytes)} and {format_bytes(one.high_bytes)}"
        for what, one in (("allocates", interval.allocated), ("reserves", interval.reserved))
    )
    message = f"these figures are predicted, nothing ran on a GPU: as far as can be told, it {' and '.join(ranges)}"
    yield LoadWarning(slug="predicted-interval", message=message)
    if engine.name == META:
        yield from settings_notes(rank)
    known = {one.slug for one in rank.warnings}
    for one in interval.doubts:
        # What the program itself gave rise to is noted with file and line already.
        if one.slug not in known:
            yield LoadWarning(slug=one.slug, message=one.message + said_bytes(one.less_bytes, one.more_bytes))


def said_bytes(less_bytes: int | None, more_bytes: int | None) -> str:
    """Return what a doubt comes to, as the end of a sentence.

    >>> said_bytes(1024**2, 0), said_bytes(0, 1024**2), said_bytes(None, None)
    (': up to 1.00 MiB less', ': up to 1.00 MiB more', '; not in the range')
    """
    if less_bytes is None and more_bytes is None:
        return "; not in the range"
    sides = ((less_bytes, "less"), (more_bytes, "more"))
    known = [f"{format_bytes(size)} {word}" for size, word in sides if size]
    return f": up to {' or '.join(known)}" if known else ""


def _with_warnings(rank: RankTrace, warnings: Sequence[LoadWarning]) -> RankTrace:
    """Return a rank with these warnings, which a trace file holds as a table."""
    ids = {text: at for at, text in enumerate(rank.strings)}
    rows = [(ids.setdefault(one.slug, len(ids)), ids.setdefault(one.message, len(ids)), one.count) for one in warnings]
    values = np.array(rows, np.int64).reshape(-1, len(WARNINGS.columns))
    columns = {column.name: values[:, at].astype(dtype_of(column)) for at, column in enumerate(WARNINGS.columns)}
    tables = {**rank.tables, "warnings": ColumnTable(WARNINGS, columns)}
    return replace(rank, strings=tuple(ids), tables=tables, warnings=tuple(warnings))
