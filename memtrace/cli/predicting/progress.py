"""Whether and how often `memtrace predict` says how far the program has come: on standard error, for who waits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from memtrace.cli.shell.told import is_quiet

if TYPE_CHECKING:
    from memtrace.launch.progress import Progress

_AT_A_TERMINAL_S = 5.0
_IN_A_LOG_S = 60.0
"""Elsewhere nobody is watching: only a run that takes long says that it is not stuck."""


def progress_of(num_steps: int, *, is_silent: bool) -> Progress | None:
    """Return what says how far a run of so many steps has come; `None` where a program reads, and not a person."""
    from memtrace.launch.progress import Progress

    if is_quiet():
        return None
    if sys.stderr is not None and sys.stderr.isatty():
        return Progress(num_steps, _say, every_s=_AT_A_TERMINAL_S)
    return None if is_silent else Progress(num_steps, _say, every_s=_IN_A_LOG_S)


def _say(line: str) -> None:
    click.echo(f"memtrace: {line}", err=True)
