"""`memtrace live`: a running recording in the terminal."""

from __future__ import annotations

import sys
import time

import click

from memtrace.cli.options.numbers import Number
from memtrace.cli.options.redaction import redaction_options
from memtrace.schema.redaction import Redaction


@click.command()
@click.argument("run")
@click.option("--once", is_flag=True, help="Print how it is now, and end.")
@click.option(
    "--interval",
    type=Number(0.1, 86_400),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@redaction_options
def live(run: str, once: bool, interval: float, redaction: Redaction) -> None:
    """Watch a running recording: steps, phases and memory of every rank.

    RUN is the output of the recording (as given to `record -o`), its .parts folder, or a process id of it. It ends when
    the recording does, or with Ctrl-C, which leaves the recording alone. Where the output is no terminal, it prints a
    line whenever a rank gets on.

    \b
    Example:
      memtrace live trace.json
      memtrace live trace.json --once
    """
    from memtrace.launch.live import Watch
    from memtrace.report.terminal.live import print_frame, screen

    watch = Watch(run, redaction=redaction)
    if once:
        print_frame(watch.look(time.time_ns()), sys.stdout)
        return
    try:
        with screen(sys.stdout) as shown:
            while True:
                began = time.monotonic()
                now = watch.look(time.time_ns())
                shown.show(now)
                if now.is_over:
                    return
                # Many ranks on a slow disk: never more than a fifth of the time is spent on looking.
                time.sleep(max(interval, 4 * (time.monotonic() - began)))
    except KeyboardInterrupt:
        return
