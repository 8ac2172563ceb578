"""Writing a report's file: never over an existing one unasked, and never half of one.

In: text and a path. Out: the file. It is written under a name of its own and moved into place when complete.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from memtrace.allocator.results import WhatIf
from memtrace.analysis.results.diff import Diff
from memtrace.analysis.results.report import Report
from memtrace.analysis.results.trend import Trend
from memtrace.errors import OutputError
from memtrace.whole_files import write_whole


def check_output(path: Path, *, force: bool) -> None:
    """Raise `OutputError` if the file may not be written; asked before the work, so that none is done in vain.

    `os.path` asks, which takes a name that no file can have for one that is not there; writing says what is wrong.
    """
    if os.path.isdir(path):
        raise OutputError(f"{path} is a folder", hint="name a file, as in report.html", slug="output-unwritable")
    if os.path.exists(path) and not force:
        raise OutputError(f"{path} exists", hint="choose another name, or add --force", slug="output-exists")
    if not os.path.isdir(path.parent):
        raise OutputError(f"{path.parent} is not a folder", hint="make the folder first", slug="output-unwritable")


def write_text(text: str, path: Path, *, force: bool) -> None:
    """Write a text file as UTF-8, whole or not at all.

    Raises:
        OutputError: as `write_bytes`.
    """
    write_bytes(text.encode("utf-8", "replace"), path, force=force)


def write_bytes(content: bytes, path: Path, *, force: bool) -> None:
    """Write a file, whole or not at all.

    Raises:
        OutputError: the file exists and `force` is false, or it cannot be written.
    """
    check_output(path, force=force)
    try:
        write_whole(path, lambda file: file.write(content))
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path} cannot be written: {reason}", slug="output-unwritable") from error


def write_html(report: Report, path: Path, *, force: bool) -> None:
    """Write the report as one HTML file.

    Raises:
        OutputError: as `write_text`.
    """
    from memtrace.report.page.report import render_html

    check_output(path, force=force)
    write_text(render_html(report), path, force=force)


def check_card_output(path: Path, *, force: bool) -> None:
    """Refuse a picture of a card that could not be drawn or written, before anything is read.

    Raises:
        OutputError: its name does not end in .svg, or as `check_output`.
    """
    if path.suffix.lower() != ".svg":
        hint = (
            "give a name that ends in .svg: pull requests and browsers show it, and every editor of pictures turns it "
        )
        raise OutputError(f"{path}: a card is drawn as SVG only", hint=f"{hint}into PNG", slug="output-unwritable")
    check_output(path, force=force)


def write_whatif(results: Sequence[WhatIf], path: Path, *, title: str, force: bool) -> None:
    """Write what-if results as one HTML file; `title` is what was read.

    Raises:
        OutputError: as `write_text`.
    """
    from memtrace.report.page.whatif import render_whatif

    check_output(path, force=force)
    write_text(render_whatif(results, title=title), path, force=force)


def write_trend(trend: Trend, path: Path, *, force: bool) -> None:
    """Write several runs in a row as one HTML file.

    Raises:
        OutputError: as `write_text`.
    """
    from memtrace.report.page.trend import render_trend

    check_output(path, force=force)
    write_text(render_trend(trend), path, force=force)


def write_diff(diff: Diff, path: Path, *, force: bool) -> None:
    """Write a comparison of two traces as one HTML file.

    Raises:
        OutputError: as `write_text`.
    """
    from memtrace.report.page.diff import render_diff

    check_output(path, force=force)
    write_text(render_diff(diff), path, force=force)
