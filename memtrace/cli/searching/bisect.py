"""`memtrace bisect`: which commit raised the memory of a run, by predictions of a few of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from memtrace.cli.options.numbers import COUNT, FEW
from memtrace.cli.predicting.engine import AUTO, ENGINES

DEFAULT_GPU = "h100-80gb"
DEFAULT_STATE = "memtrace-bisect.state"


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option(
    "--metric",
    default="steady_peak",
    show_default=True,
    help="Figure to compare, as memtrace check names it: peak, first_step_peak, reserved, steady_peak.activation …",
)
@click.option(
    "--threshold",
    metavar="SIZE|+SIZE|+P%",
    help="A commit above this is bad: a size, or so much more than GOOD. Default: midway between GOOD and BAD.",
)
@click.option("--gpu", default=DEFAULT_GPU, show_default=True, metavar="NAME", help="GPU that the program is told of.")
@click.option("--engine", type=click.Choice(ENGINES), default=AUTO, show_default=True, help="As for memtrace predict.")
@click.option("--steps", type=COUNT, default=3, show_default=True, help="Steps of each prediction.")
@click.option("--world-size", type=FEW, default=1, show_default=True, help="Ranks that the program is told of.")
@click.option(
    "--link",
    "links",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="File or folder that git does not know and the program needs, as its data: linked into each worktree.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path(DEFAULT_STATE),
    show_default=True,
    help="File of what is measured so far: the same command goes on where it broke off.",
)
@click.option("--force", is_flag=True, help="Measure again what the state file holds.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON and nothing else on standard output.")
@click.argument("good")
@click.argument("bad")
@click.argument("command", nargs=-1, required=True, metavar="-- CMD...", type=click.UNPROCESSED)
def bisect(good: str, bad: str, command: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Find the commit that raised the memory of a run.

    The program is predicted at GOOD and BAD and at a few commits between, each in a temporary worktree that is removed
    again: no GPU, and nothing of your own tree is touched. The answer is the commit, its lines that what grew was
    allocated through, and the two runs side by side. A commit at which the program fails is passed by.

    \b
    Example:
      memtrace bisect v1.4 HEAD -- python train.py --device cuda
      memtrace bisect --metric reserved --threshold +5% main~40 main -- python -m project.train
      memtrace bisect --link data --engine meta --json v1.4 HEAD -- python train.py
    """
    from memtrace.cli.searching.bisect_runs import bisected
    from memtrace.report.answers.bisect import bisect_json, bisect_text

    found = bisected(good, bad, command[1:] if command[:1] == ("--",) else command, options)
    click.echo(bisect_json(found) if as_json else bisect_text(found), nl=False)
