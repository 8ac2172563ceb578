"""Showing what a comparison found: files first, then one of text, JSON and Markdown."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memtrace.cli.options.redaction import redaction_options
from memtrace.cli.shell.told import say

if TYPE_CHECKING:
    from memtrace.analysis.results.diff import Diff
    from memtrace.analysis.results.trend import Trend


_Command = Callable[..., Any]
_HTML = "Write one HTML file that opens offline."
_MARKDOWN = "Write Markdown, for a pull request; - prints it alone."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be written and printed."""

    html: Path | None
    """A page; `None` for none."""
    markdown: Path | None
    """Markdown; - is standard output."""
    as_json: bool
    """Whether JSON is printed in place of text."""
    force: bool
    """Whether files that exist are overwritten."""

    def check(self) -> None:
        """Refuse files that cannot be written, before anything is read."""
        from memtrace.report.output import check_output

        for path in (self.html, None if self._prints_markdown else self.markdown):
            if path is not None:
                check_output(path, force=self.force)
        if self._prints_markdown and self.as_json:
            raise click.UsageError("--json and --markdown - both want standard output: take one of them")

    def show_diff(self, diff: Diff) -> None:
        """Write and print a comparison of two runs."""
        from memtrace.report.answers.diff import diff_json, diff_text
        from memtrace.report.exchange.diff_markdown import diff_markdown
        from memtrace.report.output import write_diff

        if self.html is not None:
            write_diff(diff, self.html, force=self.force)
        self._show(diff_json(diff) if self.as_json else diff_text(diff), diff_markdown(diff))

    def show_trend(self, trend: Trend) -> None:
        """Write and print several runs in a row."""
        from memtrace.report.answers.trend import trend_json, trend_text
        from memtrace.report.exchange.trend_markdown import trend_markdown
        from memtrace.report.output import write_trend

        if self.html is not None:
            write_trend(trend, self.html, force=self.force)
        self._show(trend_json(trend) if self.as_json else trend_text(trend), trend_markdown(trend))

    @property
    def _prints_markdown(self) -> bool:
        return str(self.markdown) == "-"

    def _show(self, content: str | bytes, markdown: str) -> None:
        from memtrace.report.output import write_text

        if self.markdown is not None and not self._prints_markdown:
            write_text(markdown, self.markdown, force=self.force)
        click.echo(markdown if self._prints_markdown else content, nl=False)
        for path in (self.html, None if self._prints_markdown else self.markdown):
            if path is not None:
                say(f"Wrote {path}", err=self.as_json or self._prints_markdown)


def shown_options(what: str) -> Callable[[_Command], _Command]:
    """Return what adds the options of a comparison to a command, which gets `asked`, checked, and `redaction`.

    `what` is what --json prints, as "the runs".
    """

    def add(command: _Command) -> _Command:
        @functools.wraps(command)
        def run(*, html: Path | None, markdown: Path | None, as_json: bool, force: bool, **options: Any) -> Any:
            asked = Asked(html=html, markdown=markdown, as_json=as_json, force=force)
            asked.check()
            return command(asked=asked, **options)

        path = click.Path(path_type=Path)
        shown: _Command = click.option("--force", is_flag=True, help="Overwrite the files if they exist.")(run)
        shown = redaction_options(shown)
        shown = click.option("--markdown", type=path, metavar="PATH", help=_MARKDOWN)(shown)
        shown = click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON and nothing else.")(shown)
        return click.option("--html", type=path, metavar="PATH", help=_HTML)(shown)

    return add
