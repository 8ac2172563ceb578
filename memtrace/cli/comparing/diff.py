"""`memtrace diff`: two traces side by side, or several in a row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memtrace.cli.comparing.shown import Asked, shown_options
from memtrace.schema.redaction import Redaction

if TYPE_CHECKING:
    from memtrace.analysis.results.report import Report


@click.command()
@click.argument("a", type=click.Path(exists=True, path_type=Path))
@click.argument("b", type=click.Path(exists=True, path_type=Path))
@click.argument("more", nargs=-1, type=click.Path(exists=True, path_type=Path))
@shown_options("the comparison")
def diff(a: Path, b: Path, more: tuple[Path, ...], asked: Asked, redaction: Redaction) -> None:
    """Compare two traces by category, module, stack and step.

    Differences are B less A. Each is anything that `memtrace report` reads; steps are aligned by their numbers. Of more
    than two, the peaks stand in a row, as `memtrace trend` shows a folder.

    \b
    Example:
      memtrace diff before.json after.json
      memtrace diff main/ branch/ --html diff.html --markdown comment.md
      memtrace diff v1.json v2.json v3.json
    """
    from memtrace.analysis.asked.diff import compare
    from memtrace.analysis.asked.trend import trend
    from memtrace.schema.redaction import without_places

    paths = (a, b, *more)
    names = [chr(ord("A") + at) if at < 26 else f"RUN-{at + 1}" for at in range(len(paths))]
    reports = [_report(path, redaction, name) for path, name in zip(paths, names, strict=True)]
    if more:
        title = f"{len(reports)} runs"
        asked.show_trend(trend(reports, title=title))
        return
    result = compare(*reports)
    asked.show_diff(without_places(result) if redaction is Redaction.SOURCE else result)


def _report(path: Path, redaction: Redaction, name: str) -> Report:
    from memtrace.analysis.report import analyze
    from memtrace.cli.left_out import say_left_out
    from memtrace.store.reading.read import read_trace
    from memtrace.store.redaction.redact import redacted

    report = analyze(redacted(read_trace([path]), redaction, name=name))
    say_left_out(report.warnings, of=report.title)
    return report
