"""Saying on standard error which files and ranks of a run an answer leaves out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from memtrace.printable import LINES, clean

if TYPE_CHECKING:
    from memtrace.analysis.results.report import Note
    from memtrace.store.trace import LoadWarning

SLUG = "file-unreadable"


def say_left_out(warnings: Iterable[LoadWarning | Note], *, of: str | None = None) -> None:
    """Print a line for each file or rank that could not be read or analysed; `of` names the run where there are two."""
    for one in warnings:
        if one.slug == SLUG:
            click.echo(f"warning: {clean(one.message if of is None else f'{of}: {one.message}', keep=LINES)}", err=True)
