"""What is done with one file, wherever that is: read it, analyse its ranks, keep what was found and drop the rest."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from memtrace.analysis.rank_analysis import RankAnalysis
from memtrace.analysis.report import analyze_ranks
from memtrace.parallel.sources import Source, read_source
from memtrace.schema.redaction import Redaction
from memtrace.store.files import Progress
from memtrace.store.redaction.redact import redacted
from memtrace.store.trace import LoadWarning


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileAnalysis:
    """What one file says: small enough to travel."""

    ranks: tuple[RankAnalysis, ...]
    warnings: tuple[LoadWarning, ...]
    """What the reader could not see."""


Work = Callable[..., FileAnalysis]
"""`analyze_file` with its options set: a picklable function of a source."""
Outcome = FileAnalysis | Exception
"""What came of one file."""
Outcomes = Generator[tuple[int, Outcome], None, None]
"""What came of each source, in any order, with its position."""
Runner = Callable[[Work, Sequence[Source]], Outcomes]
"""Does the work for every source."""


def analyze_file(
    source: Source,
    *,
    capacity_bytes: int | None = None,
    with_map: bool = False,
    redaction: Redaction = Redaction.NOTHING,
    progress: Progress | None = None,
) -> FileAnalysis:
    """Return the analysis of every rank in a file; options are those of `analyze_rank` and `redacted`.

    Raises:
        TraceReadError: it cannot be read. TraceVersionError: a newer memtrace wrote it.
    """
    trace = redacted(read_source(source, progress), redaction)
    ranks, failed = analyze_ranks(trace, capacity_bytes=capacity_bytes, with_map=with_map)
    return FileAnalysis(ranks=tuple(ranks), warnings=(*trace.warnings, *failed))


def analyze_in_turn(work: Work, sources: Sequence[Source], *, progress: Progress | None = None) -> Outcomes:
    """Do the work in this process, one file after the other."""
    for at, source in enumerate(sources):
        outcome: Outcome
        try:
            outcome = work(source, progress=progress)
        except Exception as error:
            outcome = error
        yield at, outcome
