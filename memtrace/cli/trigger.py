"""`memtrace trigger`: ask a running recording to keep its next steps."""

from __future__ import annotations

import click

from memtrace.cli.options.numbers import COUNT
from memtrace.cli.shell.told import say


@click.command()
@click.argument("run")
@click.option("--steps", type=COUNT, default=2, show_default=True, metavar="N", help="How many steps to keep.")
def trigger(run: str, steps: int) -> None:
    """Ask a running recording to keep its next steps.

    RUN is the output of the recording (as given to `record -o`), its .parts folder, or a process id of it. The steps
    are kept in addition to those that were chosen, from the next step on.

    \b
    Example:
      memtrace trigger trace.json
      memtrace trigger 12345 --steps 5
    """
    from memtrace.launch.trigger import trigger

    num_launchers = trigger(run, steps)
    launchers = f" of {num_launchers} launchers" if num_launchers > 1 else ""
    say(f"Asked the recording{launchers} for its next {'step' if steps == 1 else f'{steps} steps'}.")
