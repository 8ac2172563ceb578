"""Reading back, for scripts and notebooks: a trace that can show itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtrace.errors import MemtraceError
from memtrace.store.files import Progress
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import Trace

if TYPE_CHECKING:
    from memtrace.integrations.notebook_page import Page


def read(paths: str | Path | Sequence[str | Path], *, progress: Progress | None = None) -> ReadTrace:
    """Return the trace in a file or a folder, or in several of them as one run.

    A file is a memtrace trace, a torch memory snapshot or a Kineto profile, compressed or not; a folder holds such
    files, or the parts of a recording. In a folder, files that cannot be read become warnings.

    Raises:
        TraceReadError: nothing readable is there. TraceVersionError: a newer memtrace wrote it.
    """
    return ReadTrace.of(read_trace(paths, progress=progress))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReadTrace(Trace):
    """A trace that says in one line what it is, and draws its report in a notebook."""

    @staticmethod
    def of(trace: Trace) -> ReadTrace:
        """Return a trace as one that can show itself."""
        return ReadTrace(header=trace.header, ranks=trace.ranks, path=trace.path, warnings=trace.warnings)

    def show(self, *, height: int = 800, capacity: str | None = None, with_source: bool = True) -> Page:
        """Return the interactive report, for the last line of a notebook's cell; it needs no network.

        Args:
            height: Pixels.
            capacity: Memory of the device, as "24GiB", in place of what the trace says.
            with_source: Whether files, lines, host, arguments and messages of errors are shown.

        Raises:
            MemtraceError: the page would be too large for a notebook.
        """
        from memtrace.integrations.notebook_page import page_of

        return page_of(self, height=height, capacity=capacity, with_source=with_source)

    def figure(self, *, rank: int | None = None, capacity: str | None = None) -> Any:
        """Return the memory over time as a plotly figure, stacked by category, to change and to join with others.

        Args:
            rank: Number of the rank; the one that the report is about where it is left out.
            capacity: Memory of the device, as "24GiB", in place of what the trace says.

        Raises:
            MemtraceError: there is no such rank, or no history of its memory.
        """
        from memtrace.analysis.report import analyze
        from memtrace.report.exchange.plotly_figure import memory_figure
        from memtrace.units import parse_bytes

        report = analyze(self, capacity_bytes=None if capacity is None else parse_bytes(capacity))
        chosen = [one for one in report.ranks if rank is not None and one.rank == rank]
        if rank is None and report.main_rank is not None:
            chosen = [report.ranks[report.main_rank]]
        if not chosen:
            numbers = ", ".join(str(one.rank) for one in report.ranks if one.rank is not None) or "not numbered"
            raise MemtraceError(f"there is no memory of rank {rank} in it", hint=f"ranks are {numbers}")
        return memory_figure(chosen[0])

    def __repr__(self) -> str:
        """Say what was read; the tables themselves are too long to print."""
        num_events = sum(rank.num_events for rank in self.ranks)
        num_steps = max((int((rank.table("steps")["step"] > 0).sum()) for rank in self.ranks), default=0)
        ranks = f"{len(self.ranks)} ranks, " if len(self.ranks) != 1 else ""
        return f"<memtrace trace {self.path}: {ranks}{num_events:,} events, {num_steps} steps; show() draws its report>"
