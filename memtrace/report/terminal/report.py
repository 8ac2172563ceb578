"""The report in a terminal: the card, then as many sections as one screen has room for; the rest when asked for.

In: `Report`. Out: text, with colour only where the terminal has it. Every number is a field of a result. The sections
are in the files beside this one; only this folder imports rich.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import IO

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from memtrace.analysis.results.report import Report
from memtrace.errors import MemtraceError
from memtrace.printable import clean
from memtrace.report.terminal import findings as text_findings
from memtrace.report.terminal.card import WIDTH, card_lines
from memtrace.report.terminal.console import MAX_WIDTH, as_text, print_to, terminal_width
from memtrace.report.terminal.sections import NAMES, Section, sections_of

MAX_LINES = 43
"""Lines that a report has unless more is asked for; a command adds one or two."""
_FOOTER_LINES = 3
_FIRST = ("oom", "not-read", "changes", "prediction", "ranks", "memory", "stacks", "steps", "not-seen", "fragmentation")
"""What gets room first; then the others in the order of reading. What the card says already comes last."""
_ON_THE_CARD = ("categories", "next")


def print_report(
    report: Report, *, file: IO[str] | None = None, full: bool = False, names: Collection[str] = ()
) -> None:
    """Print the report to a file, standard output if none is given, in the colours and width of a terminal.

    Raises:
        MemtraceError: none of the sections of these `names` is there.
    """
    target = file or sys.stdout
    width = terminal_width(target)
    print_to(target, _only(report, names) if names else _full(report, width) if full else _brief(report, width))


def render_text(report: Report, *, width: int = MAX_WIDTH, full: bool = True) -> str:
    """Return the report as plain text of a width, without colour."""
    return as_text(_full(report, width) if full else _brief(report, width), width=width)


def _head(report: Report, width: int, *, with_command: bool) -> list[RenderableType]:
    """Return what was read, and the card."""
    title: RenderableType = Text(f"memtrace  {clean(report.title)}", style="dim")
    if report.card is None:
        return [title, "", Padding(Text(clean(report.verdict), style="bold"), (0, 2))]
    lines = card_lines(report.card, width=min(WIDTH, width))
    return [title, "", *(lines if with_command else [one for one in lines if not one.plain.startswith("next ")])]


def _full(report: Report, width: int) -> Group:
    """Return the whole report."""
    return Group(*_head(report, width, with_command=False), *_with_ranks(sections_of(report)))


def _with_ranks(sections: Sequence[Section]) -> list[RenderableType]:
    """Return sections, with the name of a rank above the first of its own."""
    parts: list[RenderableType] = []
    rank = None
    for section in sections:
        if section.rank is not None and section.rank != rank:
            parts += ["", Text(section.rank, style="bold underline")]
        rank = section.rank
        parts += section.parts()
    return parts


def _only(report: Report, names: Collection[str]) -> Group:
    """Return the sections of some names."""
    found = sections_of(report)
    chosen = [one for one in found if one.name in names]
    if not chosen:
        there = ", ".join(dict.fromkeys(one.name for one in found)) or "none"
        raise MemtraceError(f"this report has no section {', '.join(names)}", hint=f"it has: {there}")
    return Group(*_with_ranks(chosen)[1:])


def _brief(report: Report, width: int) -> Group:
    """Return the card and what else one screen has room for, and the names of the rest."""
    head = _head(report, width, with_command=True)
    sections = sections_of(report)
    # One rank in short: the first that is told of at all.
    first = next((one.rank for one in sections if one.rank is not None), None)
    own = [_shortened(report, one) for one in sections if one.rank in (None, first)]
    room = MAX_LINES - _height(head, width) - _FOOTER_LINES
    shown: list[Section] = []
    for section in sorted(own, key=_urgency):
        height = _height(section.parts(), width)
        if height <= room and not (report.card is not None and section.name in _ON_THE_CARD):
            shown.append(section)
            room -= height
    body = [part for one in own if one in shown for part in one.parts()]
    rest = [one.name for one in sections if one.name not in {two.name for two in shown} | set(_ON_THE_CARD)]
    return Group(*head, *body, *_footer(rest, width))


def _urgency(section: Section) -> tuple[int, int]:
    place = _FIRST.index(section.name) if section.name in _FIRST else len(_FIRST)
    return place, NAMES.index(section.name)


def _shortened(report: Report, section: Section) -> Section:
    """Return a section as it is on one screen: findings without what stands on the card."""
    if section.name != "changes" or report.card is None:
        return section
    body = text_findings.in_short(report.findings)
    return Section(name="changes", title=section.title, body=body)


def _height(parts: Sequence[RenderableType], width: int) -> int:
    return as_text(Group(*parts), width=width).count("\n")


def _footer(rest: Sequence[str], width: int) -> list[RenderableType]:
    """Return how to see what is not shown."""
    if not rest:
        return ["", Text("All of it, figure by figure: --full", style="dim")]
    names = ", ".join(dict.fromkeys(rest))
    line = Text(f"More: --full, or --section with {names}", style="dim")
    line.truncate(2 * width - 20, overflow="ellipsis")
    return ["", line]
