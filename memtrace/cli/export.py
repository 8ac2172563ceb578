"""`memtrace export`: a trace in the format of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memtrace.cli.options.numbers import RANK
from memtrace.cli.options.redaction import redaction_options
from memtrace.cli.shell.told import say
from memtrace.schema.redaction import Redaction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memtrace.analysis.results.report import Note
    from memtrace.store.trace import LoadWarning, Trace

_SUFFIXES = {
    "perfetto": ".perfetto.json",
    "memory-viz": ".pickle",
    "speedscope": ".speedscope.json",
    "csv": ".csv",
    "parquet": ".parquet",
    "trace": ".trace.json",
}


@click.command()
@click.argument("trace", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--to", "target", required=True, type=click.Choice(list(_SUFFIXES)), help="The format.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="PATH", help="The file to write.")
@click.option("--rank", type=RANK, help="The rank to export, where the format holds one only (memory-viz).")
@click.option("--table", default="allocations", show_default=True, help="The table, for csv and parquet.")
@redaction_options
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
def export(
    trace: tuple[Path, ...],
    target: str,
    output: Path | None,
    rank: int | None,
    table: str,
    force: bool,
    redaction: Redaction,
) -> None:
    """Write a trace in the format of another tool.

    perfetto: counters by category, slices for steps, phases, modules and kernels (ui.perfetto.dev). memory-viz: a
    memory snapshot of torch (pytorch.org/memory_viz). speedscope: the stacks at the peak. csv, parquet: a table for
    pandas. In csv a text that a spreadsheet would run as a formula has a ' in front. trace: the trace itself, to share
    it with --redact.

    \b
    Example:
      memtrace export trace.json --to perfetto
      memtrace export run/ --to memory-viz --rank 3 -o rank3.pickle
      memtrace export trace.json --to csv --table steps -o steps.csv
      memtrace export trace.json --to trace --redact -o to-share.json.gz
    """
    from memtrace.cli.left_out import say_left_out
    from memtrace.report.output import check_output, write_bytes
    from memtrace.store.reading.read import read_trace
    from memtrace.store.redaction.redact import shareable
    from memtrace.store.writing.trace import write_trace

    path = output or Path(trace[0].name.split(".")[0] + _SUFFIXES[target])
    check_output(path, force=force)
    shown = shareable(read_trace(trace), redaction)
    if target == "trace":
        say_left_out(shown.warnings)
        write_trace(shown, path)
    else:
        content, warnings = _content(shown, target, rank, table)
        say_left_out(warnings)
        write_bytes(content, path, force=force)
    say(f"Wrote {path}", err=False)


def _content(trace: Trace, target: str, rank: int | None, table: str) -> tuple[bytes, Iterable[LoadWarning | Note]]:
    """Return the content of the file, and what is to be said of ranks that it may lack."""
    from memtrace.analysis.asked.dataframes import ALLOCATIONS, allocations_frame, table_frame

    if target == "perfetto":
        from memtrace.analysis.asked.tracks import rank_tracks
        from memtrace.analysis.each_rank import of_each_rank
        from memtrace.report.exchange.perfetto import perfetto_json

        tracks, left_out = of_each_rank(trace, rank_tracks)
        return perfetto_json(tracks), [*trace.warnings, *left_out]
    if target == "memory-viz":
        from memtrace.store.writing.snapshot import snapshot_pickle

        return snapshot_pickle(trace, rank=rank), trace.warnings
    if target != "speedscope" and table != ALLOCATIONS:
        from memtrace.store.writing.table import table_bytes

        return table_bytes(table_frame(trace, table), target), trace.warnings

    from memtrace.analysis.report import analyze

    report = analyze(trace, with_map=target != "speedscope")
    if target == "speedscope":
        from memtrace.report.exchange.speedscope import speedscope_json

        return speedscope_json(report), report.warnings
    from memtrace.store.writing.table import table_bytes

    return table_bytes(allocations_frame(report), target), report.warnings
