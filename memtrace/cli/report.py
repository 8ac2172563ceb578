"""`memtrace report`: where the memory of a recorded run went, in the terminal, as HTML or as JSON."""

from __future__ import annotations

import sys
import tempfile
import time
import webbrowser
from pathlib import Path
from typing import Any

import click

from memtrace.cli.options.numbers import Size
from memtrace.cli.options.redaction import redaction_options
from memtrace.printable import LINES, clean
from memtrace.schema.findings import SLUGS
from memtrace.schema.redaction import Redaction

EXIT_FAILED_ON = 3
"""Exit code where the report has a finding that `--fail-on` names."""
_SHOW_AFTER_SECONDS = 1.0


class TracePath(click.Path):
    """A path that exists, or a URL, which is looked up when it is read."""

    name = "path"

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `Path`, or the URL as text; wrong usage where a path does not exist."""
        return value if "://" in str(value) else super().convert(value, param, ctx)


class Progress:
    """A line on standard error that says how far reading is, where that takes long and somebody watches."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._watched = sys.stderr.isatty()
        self._shown = False

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Show progress, once a second has passed."""
        if self._watched and time.monotonic() - self._start > _SHOW_AFTER_SECONDS:
            share = f" {100 * done // total:3d} %" if total else ""
            name = clean(what)[:60]
            click.echo(f"\r\x1b[2K{name}{share}", nl=False, err=True)
            self._shown = True

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            click.echo("\r\x1b[2K", nl=False, err=True)


@click.command()
@click.argument("trace", nargs=-1, required=True, type=TracePath())
@click.option("--html", type=click.Path(path_type=Path), metavar="PATH", help="Write one HTML file that opens offline.")
@click.option(
    "--open", "opens", is_flag=True, help="Open the page in a browser; --html is a temporary file by default."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON and nothing else.")
@redaction_options
@click.option("--force", is_flag=True, help="Overwrite the HTML file if it exists.")
@click.option("--capacity", type=Size(), help="Memory of the device, as in 24GiB, in place of what the trace says.")
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Read and analyse on the workers of a running Dask cluster, as in tcp://scheduler:8786.",
)
@click.option(
    "--fail-on",
    multiple=True,
    type=click.Choice(("error", "warning", *SLUGS)),
    metavar="FINDING",
    help="Exit with 3 if the report has this finding: oom, leak, fragmentation or any other short name of "
    "docs/messages.md, or a severity (error; warning, which includes error). Repeatable.",
)
@click.pass_context
def report(
    context: click.Context,
    trace: tuple[Path | str, ...],
    html: Path | None,
    opens: bool,
    as_json: bool,
    force: bool,
    capacity: int | None,
    cluster: str | None,
    fail_on: tuple[str, ...],
    redaction: Redaction,
) -> None:
    """Report where the memory of a recorded run went.

    TRACE is a trace.json that `memtrace record` wrote, a run folder or a folder of parts, a memory snapshot of torch
    (.pickle), or a profiler trace (Kineto .json); each may be compressed. Several are read as one run, in as many
    processes as there are processors. URLs that fsspec knows (s3://, gs://) are read as well.

    \b
    Example:
      memtrace report trace.json
      memtrace report snapshot.pickle --html report.html --capacity 24GiB
      memtrace report trace.json --open
      memtrace report run/ --json > report.json
      memtrace report trace.json --redact --html to-share.html
      memtrace report trace.json --capacity 80GiB --fail-on oom --fail-on leak
      memtrace report s3://bucket/run --cluster tcp://scheduler:8786
    """
    from memtrace.analysis.advice.find import failing
    from memtrace.parallel.run import report_of
    from memtrace.report.answers.personal import personal_line
    from memtrace.report.output import check_output, write_html

    if html is None and opens:
        html = Path(tempfile.mkdtemp(prefix="memtrace-")) / "report.html"
    if html is not None:
        check_output(html, force=force)
    progress = Progress()
    try:
        result = report_of(
            trace,
            capacity_bytes=capacity,
            with_map=html is not None,
            redaction=redaction,
            cluster=cluster,
            progress=progress,
        )
    finally:
        progress.clear()
    if html is not None:
        write_html(result, html, force=force)
    if as_json:
        from memtrace.report.json.report import report_json

        click.echo(report_json(result), nl=False)
    else:
        from memtrace.report.terminal.report import print_report

        print_report(result)
    if html is not None:
        click.echo(f"Wrote {html}", err=as_json)
    held = personal_line(result) if redaction is Redaction.NOTHING else None
    if held is not None:
        click.echo(click.style(held, dim=True), err=as_json)
    if html is not None and opens:
        webbrowser.open(html.resolve().as_uri())
    failed = failing(result.findings, fail_on)
    for finding in failed:
        click.echo(f"failed on {finding.slug}: {clean(finding.title, keep=LINES)}", err=True)
    if failed:
        context.exit(EXIT_FAILED_ON)
