"""`--redact` and `--no-source`, which every command has that shows or writes a trace."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from memtrace.schema.redaction import Redaction

_Command = Callable[..., Any]


def redaction_options(command: _Command) -> _Command:
    """Add the options to a command, which gets `redaction`, the stronger of the two."""

    @functools.wraps(command)
    def run(*arguments: Any, redact: bool, no_source: bool, **options: Any) -> Any:
        redaction = Redaction.SOURCE if no_source else Redaction.PERSONAL if redact else Redaction.NOTHING
        return command(*arguments, redaction=redaction, **options)

    for flag, help_text in (
        ("--no-source", "Leave out all that --redact does, and the names and lines of files."),
        ("--redact", "Leave out host, user, arguments, environment, messages of errors, and folders of files."),
    ):
        run = click.option(flag, is_flag=True, help=help_text)(run)
    return run
