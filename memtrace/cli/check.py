"""`memtrace check`: does a run keep its budgets, and what a baseline needed? For CI."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memtrace.cli.options.redaction import redaction_options
from memtrace.cli.shell.errors import BadValue
from memtrace.cli.shell.told import say
from memtrace.errors import MemtraceError
from memtrace.schema.names import Category
from memtrace.schema.redaction import Redaction

if TYPE_CHECKING:
    from memtrace.analysis.results.check import Budget, Check

EXIT_FAILED = 3
"""Exit code where a budget is broken, or the baseline exceeded."""
ALL_CATEGORIES = "categories"
MAX_PERCENT = 10**6
_PERCENT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%?\s*")


class BudgetText(click.ParamType):  # type: ignore[type-arg]  # generic only for type checkers of the newest click
    """An upper limit, as in steady_peak=70GiB."""

    name = "budget"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Budget:
        """Return the budget; wrong usage where the text is none."""
        from memtrace.analysis.asked.check import parse_budget
        from memtrace.units import parse_size

        try:
            budget = parse_budget(str(value))
            parse_size(re.split("[<=]", str(value))[-1])
            return budget
        except MemtraceError as error:
            raise BadValue(error.message, error.hint, ctx=ctx, param=param) from error


class Percent(click.ParamType):  # type: ignore[type-arg]
    """A share, as in 2%."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return percent; wrong usage where the text is no share."""
        match = _PERCENT.fullmatch(str(value))
        if match is None or float(match[1]) > MAX_PERCENT:
            self.fail(f"not a share: {value!r}: write it as in 2%", param, ctx)
        return float(match[1])


@click.command()
@click.argument("trace", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    type=BudgetText(),
    metavar="NAME=SIZE",
    help="An upper limit: NAME=SIZE or NAME<=SIZE allow the size itself, NAME<SIZE does not. NAME is peak, "
    "first_step_peak, steady_peak, reserved, end, step_end, a category at the peak (activation), or a category at "
    "another moment (end.parameter). Repeatable.",
)
@click.option(
    "--baseline",
    type=click.Path(exists=True, path_type=Path),
    metavar="TRACE",
    help="Compare with this trace: fail if the peak, what is reserved, the steady state or what leaks grew. Categories "
    "at the peak inform.",
)
@click.option(
    "--gate",
    "gates",
    multiple=True,
    type=click.Choice((ALL_CATEGORIES, *(one.value for one in Category))),
    metavar="CATEGORY",
    help="Fail also if this category at the peak grew, as activation; categories stands for all of them. Repeatable.",
)
@click.option("--tolerance", type=Percent(), help="Growth to allow, in percent of the baseline's.  [default: 1%]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="PATH", help="Write JUnit XML, for a build server.")
@click.option(
    "--markdown", type=click.Path(path_type=Path), metavar="PATH", help="Write Markdown, for a pull request's comment."
)
@redaction_options
@click.option("--force", is_flag=True, help="Overwrite the files if they exist.")
@click.pass_context
def check(
    context: click.Context,
    trace: tuple[Path, ...],
    budgets: tuple[Budget, ...],
    baseline: Path | None,
    gates: tuple[str, ...],
    tolerance: float | None,
    as_json: bool,
    junit: Path | None,
    markdown: Path | None,
    force: bool,
    redaction: Redaction,
) -> None:
    """Check a run against budgets, or against an earlier run.

    TRACE is anything that `memtrace report` reads. Of several ranks every one must keep each budget; the one that needs
    most is shown. Exit code 0: passed. 3: failed. 1: error, also where the trace lacks a figure. 2: wrong usage.

    \b
    Example:
      memtrace check trace.json --budget steady_peak=70GiB --budget activation=30GiB
      memtrace check trace.json --baseline main.json --tolerance 2% --markdown comment.md --junit memory.xml
    """
    from memtrace.analysis.asked.check import check as hold_against
    from memtrace.analysis.report import analyze
    from memtrace.cli.left_out import say_left_out
    from memtrace.report.output import check_output
    from memtrace.schema.redaction import without_places
    from memtrace.store.reading.read import read_trace
    from memtrace.store.redaction.redact import redacted

    if not budgets and baseline is None:
        raise click.UsageError("nothing to check: give a --budget or a --baseline")
    if baseline is None and (gates or tolerance is not None):
        raise click.UsageError(f"{'--gate' if gates else '--tolerance'} needs a --baseline")
    for path in (junit, markdown):
        if path is not None:
            check_output(path, force=force)
    before = None if baseline is None else analyze(redacted(read_trace([baseline]), redaction, name="BASELINE"))
    if before is not None:
        say_left_out(before.warnings, of=before.title)
    tolerance_pct = 1.0 if tolerance is None else tolerance
    run = analyze(redacted(read_trace(trace), redaction))
    result = hold_against(run, budgets, baseline=before, tolerance_pct=tolerance_pct, gates=gates)
    result = without_places(result) if redaction is Redaction.SOURCE else result
    _show(result, as_json=as_json, junit=junit, markdown=markdown, force=force)
    if not result.passed:
        context.exit(EXIT_FAILED)


def _show(result: Check, *, as_json: bool, junit: Path | None, markdown: Path | None, force: bool) -> None:
    """Write the files that are asked for, then print the result: whoever reads that may go away."""
    from memtrace.report.answers.check import check_json, check_text
    from memtrace.report.exchange.junit import check_junit, check_markdown
    from memtrace.report.output import write_text

    written = [
        (path, render) for path, render in ((junit, check_junit), (markdown, check_markdown)) if path is not None
    ]
    for path, render in written:
        write_text(render(result), path, force=force)
    click.echo(check_json(result) if as_json else check_text(result), nl=False)
    for path, _ in written:
        say(f"Wrote {path}", err=as_json)
