"""Errors as the user sees them: `error: …`, and on a second line `hint: …`; and the exit codes that go with them.

Wrong usage is told in the same way as everything else, with what was probably meant.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import click

from memtrace.errors import MemtraceError
from memtrace.printable import LINES, clean

_MISSING = re.compile(r"(?:File|Directory|Path) '(.*)' does not exist", re.DOTALL)
_MOST_NAMES = 10_000

EXIT_CODES = {
    0: "done; of a check: passed; of an estimate or a prediction: it fits",
    1: "an error: a file is not there, cannot be read or written, or does not hold what is asked for",
    2: "wrong usage: a command, an option or a value",
    3: "the answer is no: a check failed, a `--fail-on` was met, nothing fits",
    4: "the answer is not certain: the memory of the GPU lies within the doubt",
    130: "Ctrl-C",
}
"""What an exit code means; `record` and what runs a program under it return the program's own."""


class ShownError(click.ClickException):
    """An error as the user sees it: what and where, and on a second line what to try."""

    def __init__(self, message: str, hint: str | None, exit_code: int) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code  # type: ignore[misc]  # click types it as fixed for a class

    def show(self, file: IO[Any] | None = None) -> None:
        """Print `error: …` and `hint: …` to standard error."""
        click.echo(f"error: {clean(self.message, keep=LINES)}", file=file, err=True)
        if self.hint:
            click.echo(f"hint: {clean(self.hint, keep=LINES)}", file=file, err=True)


class BadValue(click.BadParameter):
    """A value that an option does not take, with what to write in its place."""

    def __init__(
        self, message: str, hint: str | None, *, ctx: click.Context | None = None, param: click.Parameter | None = None
    ) -> None:
        super().__init__(message, ctx=ctx, param=param)
        self.hint = hint


def shown(error: click.UsageError, commands: Sequence[str]) -> ShownError:
    """Return wrong usage as an error of memtrace: what is wrong, and what to try."""
    message = error.format_message().strip().removesuffix(".")
    hint = getattr(error, "hint", None)
    if isinstance(error, click.exceptions.NoSuchOption):
        message = f"there is no option {error.option_name}"
        hint = f"did you mean {' or '.join(error.possibilities)}?" if error.possibilities else None
    elif message.startswith("No such command"):
        typed = message.partition("'")[2].rpartition("'")[0]
        near = difflib.get_close_matches(typed.lower(), commands, n=2, cutoff=0.5)
        message, hint = f"there is no command {typed!r}", f"did you mean {' or '.join(near)}?" if near else None
    words = error.ctx.command_path if error.ctx is not None else "memtrace"
    return ShownError(_lower(message), hint or f"`{words} --help` says what it takes", 2)


def missing_file(error: click.UsageError) -> MemtraceError | None:
    """Return the error of a path that leads nowhere, with what lies near it; `None` of any other wrong usage."""
    param = getattr(error, "param", None)
    match = _MISSING.search(error.format_message())
    if match is None or not isinstance(getattr(param, "type", None), click.Path):
        return None
    path = Path(match[1])
    near = difflib.get_close_matches(path.name, _names_beside(path), n=2, cutoff=0.5)
    places = [str(path.parent / name) for name in near]
    hint = f"did you mean {' or '.join(places)}?" if places else f"`ls {path.parent}` shows what is there"
    if not path.parent.is_dir():
        hint = f"there is no folder {path.parent} either"
    return MemtraceError(f"there is no file or folder {path}", hint=hint)


def _names_beside(path: Path) -> list[str]:
    try:
        with os.scandir(path.parent) as found:
            return [one.name for one in itertools.islice(found, _MOST_NAMES)]
    except (OSError, ValueError):
        return []


def _lower(message: str) -> str:
    """Return a message that begins like ours, with a small letter."""
    return message[:1].lower() + message[1:]
