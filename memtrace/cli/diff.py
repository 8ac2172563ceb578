"""`memtrace diff`: two traces side by side."""

from __future__ import annotations

from pathlib import Path

import click

from memtrace.cli.options.redaction import redaction_options
from memtrace.schema.redaction import Redaction


@click.command()
@click.argument("a", type=click.Path(exists=True, path_type=Path))
@click.argument("b", type=click.Path(exists=True, path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), metavar="PATH", help="Write one HTML file that opens offline.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON and nothing else.")
@redaction_options
@click.option("--force", is_flag=True, help="Overwrite the HTML file if it exists.")
def diff(a: Path, b: Path, html: Path | None, as_json: bool, force: bool, redaction: Redaction) -> None:
    """Compare two traces by category, module, stack and step.

    Differences are B less A. Each is anything that `memtrace report` reads; steps are aligned by their numbers.

    \b
    Example:
      memtrace diff before.json after.json
      memtrace diff main/ branch/ --html diff.html
    """
    from memtrace.analysis.asked.diff import compare
    from memtrace.analysis.report import analyze
    from memtrace.cli.left_out import say_left_out
    from memtrace.report.answers.diff import diff_json, diff_text
    from memtrace.report.output import check_output, write_diff
    from memtrace.schema.redaction import without_places
    from memtrace.store.reading.read import read_trace
    from memtrace.store.redaction.redact import redacted

    if html is not None:
        check_output(html, force=force)
    traces = (redacted(read_trace([path]), redaction, name=name) for path, name in ((a, "A"), (b, "B")))
    reports = [analyze(trace) for trace in traces]
    for report in reports:
        say_left_out(report.warnings, of=report.title)
    result = compare(*reports)
    result = without_places(result) if redaction is Redaction.SOURCE else result
    if html is not None:
        write_diff(result, html, force=force)
    click.echo(diff_json(result) if as_json else diff_text(result), nl=False)
    if html is not None:
        click.echo(f"Wrote {html}", err=as_json)
