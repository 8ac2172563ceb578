"""`memtrace trend`: a folder of traces as the history of a program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memtrace.cli.comparing.shown import Asked, shown_options
from memtrace.errors import MemtraceError
from memtrace.schema.redaction import Redaction

if TYPE_CHECKING:
    from memtrace.analysis.results.report import Report

_ENDINGS = (".json", ".json.gz", ".json.zst", ".pickle", ".pickle.gz")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@shown_options("the runs")
def trend(folder: Path, asked: Asked, redaction: Redaction) -> None:
    """Show how the peak went over the runs in a folder.

    Each trace in DIR is a run, and each folder in it one of several ranks. Runs are ordered by the time at which they
    were recorded. Keep a trace of every commit there, and see which of them needs more.

    \b
    Example:
      memtrace trend traces/
      memtrace trend traces/ --html history.html
    """
    from memtrace.analysis.asked.trend import trend as in_a_row
    from memtrace.parallel.run import report_of

    reports: list[Report] = []
    unread: list[str] = []
    for path in _runs(folder):
        try:
            reports.append(report_of((path,), redaction=redaction))
        except MemtraceError as error:
            unread.append(error.message if redaction is Redaction.NOTHING else "a file that could not be read")
    if not reports:
        hint = "name a folder that holds traces, as `memtrace record -o FOLDER/NAME.json` writes them"
        raise MemtraceError(f"{folder}: no trace in it can be read", hint=hint)
    title = folder.name or str(folder) if redaction is Redaction.NOTHING else "runs"
    asked.show_trend(in_a_row(reports, title=title, by_time=True, unread=unread))


def _runs(folder: Path) -> list[Path]:
    """Return what in a folder may be a run: traces, and folders with a trace a rank."""
    found = [one for one in sorted(folder.iterdir()) if not one.name.startswith(".")]
    return [
        one
        for one in found
        if (one.is_dir() and any(_is_trace(file) for file in one.iterdir())) or (one.is_file() and _is_trace(one))
    ]


def _is_trace(path: Path) -> bool:
    return path.name.endswith(_ENDINGS)
