"""`memtrace report`: where the memory of a recorded run went, in the terminal, as HTML or as JSON."""

from __future__ import annotations

import difflib
import sys
import tempfile
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memtrace.cli.options.numbers import Size
from memtrace.cli.options.redaction import redaction_options
from memtrace.cli.shell.told import is_quiet, say
from memtrace.printable import LINES, clean
from memtrace.schema.findings import SLUGS
from memtrace.schema.redaction import Redaction

if TYPE_CHECKING:
    from memtrace.analysis.results.report import Report

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
        self._watched = sys.stderr.isatty() and not is_quiet()
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What a report is written to beside the terminal."""

    html: Path | None
    """The page."""
    markdown: Path | None
    """The card as Markdown; - is standard output."""
    card: Path | None
    """The card as a picture."""
    force: bool
    """Whether files that exist are overwritten."""

    @property
    def prints_markdown(self) -> bool:
        """Whether Markdown is all that standard output gets."""
        return str(self.markdown) == "-"

    def write(self, report: Report) -> list[Path]:
        """Write all of them before anything is printed: a reader of the output may go away. Return their names."""
        from memtrace.report.exchange.card_markdown import card_markdown
        from memtrace.report.exchange.card_svg import card_svg
        from memtrace.report.output import write_html, write_text

        assert report.card is not None, "a report that was put together has a card"
        if self.html is not None:
            write_html(report, self.html, force=self.force)
        if self.markdown is not None:
            text = card_markdown(report.card, title=report.title)
            if self.prints_markdown:
                click.echo(text, nl=False)
            else:
                write_text(text, self.markdown, force=self.force)
        if self.card is not None:
            write_text(card_svg(report.card), self.card, force=self.force)
        files = (self.html, None if self.prints_markdown else self.markdown, self.card)
        return [path for path in files if path is not None]


def _without_the_page(report: Report) -> Report:
    """Return a report that does not propose to write the page that was just written."""
    left = tuple(one for one in report.next_commands if " --html " not in one)
    card = report.card
    if card is not None and card.next_command not in left:
        card = replace(card, next_command=left[0] if left else None)
    return replace(report, next_commands=left, card=card)


def _check_sections(names: Sequence[str], *, is_alone: bool) -> None:
    """Refuse sections that no report has, and those that are asked for beside all that is printed."""
    from memtrace.report.terminal.sections import NAMES

    if names and not is_alone:
        raise click.UsageError("--section is printed alone: leave out --full, --json and --markdown -")
    for name in names:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
            meant = f"did you mean {near[0]}? There are" if near else "there are"
            raise click.UsageError(f"no report has a section {name!r}: {meant} {', '.join(NAMES)}")


@click.command()
@click.argument("trace", nargs=-1, required=True, type=TracePath())
@click.option("--html", type=click.Path(path_type=Path), metavar="PATH", help="Write one HTML file that opens offline.")
@click.option(
    "--open", "opens", is_flag=True, help="Open the page in a browser; --html is a temporary file by default."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON and nothing else.")
@click.option("--full", is_flag=True, help="Print every section, not only what one screen has room for.")
@click.option(
    "--section",
    "sections",
    multiple=True,
    metavar="NAME",
    help="Print this section alone: steps, stacks, changes, phases or any other; the end of a report names those that "
    "it left out. Repeatable.",
)
@click.option(
    "--markdown", type=click.Path(path_type=Path), metavar="PATH", help="Write the card as Markdown; - prints it alone."
)
@click.option("--card", type=click.Path(path_type=Path), metavar="PATH", help="Draw the card as a picture (.svg).")
@redaction_options
@click.option("--force", is_flag=True, help="Overwrite the files if they exist.")
@click.option("--capacity", type=Size(), help="Memory of the device, as 24GiB or h100-80gb, not what the trace says.")
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
    full: bool,
    sections: tuple[str, ...],
    markdown: Path | None,
    card: Path | None,
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
      memtrace report trace.json --section steps --section stacks
      memtrace report trace.json --markdown comment.md --card card.svg
      memtrace report run/ --json > report.json
      memtrace report trace.json --redact --html to-share.html
      memtrace report trace.json --capacity 80GiB --fail-on oom --fail-on leak
      memtrace report s3://bucket/run --cluster tcp://scheduler:8786
    """
    from memtrace.analysis.advice.find import failing
    from memtrace.parallel.run import report_of
    from memtrace.report.answers.personal import personal_line
    from memtrace.report.output import check_card_output, check_output

    if html is None and opens:
        html = Path(tempfile.mkdtemp(prefix="memtrace-")) / "report.html"
    files = Files(html=html, markdown=markdown, card=card, force=force)
    _check_sections(sections, is_alone=not (full or as_json or files.prints_markdown))
    for path in (html, None if files.prints_markdown else markdown):
        if path is not None:
            check_output(path, force=force)
    if card is not None:
        check_card_output(card, force=force)
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
    written = files.write(result)
    result = result if html is None else _without_the_page(result)
    if as_json:
        from memtrace.report.json.report import report_json

        click.echo(report_json(result), nl=False)
    elif not files.prints_markdown:
        from memtrace.report.terminal.report import print_report

        print_report(result, full=full, names=sections)
    for path in written:
        say(f"Wrote {path}", err=as_json or files.prints_markdown)
    held = personal_line(result) if redaction is Redaction.NOTHING else None
    if held is not None:
        click.echo(click.style(held, dim=True), err=as_json or files.prints_markdown)
    if html is not None and opens:
        webbrowser.open(html.resolve().as_uri())
    failed = failing(result.findings, fail_on)
    for finding in failed:
        click.echo(f"failed on {finding.slug}: {clean(finding.title, keep=LINES)}", err=True)
    if failed:
        context.exit(EXIT_FAILED_ON)
