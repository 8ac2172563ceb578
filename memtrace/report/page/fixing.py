"""What `memtrace fix` found as one HTML file that needs nothing else: the ladder, memory against time, what to do.

In: `Fixed`, and the patch. Out: the text of the page. Every number is a field of a result; only lengths and places of
marks are worked out.
"""

from __future__ import annotations

import shlex
from collections import Counter

from memtrace.forecast.fixing.results import Fixed, Rung
from memtrace.report.answers.fix_code import code_of, environment_of
from memtrace.report.answers.fix_patch import Patch
from memtrace.report.answers.fixing import answer_lines, peak_line
from memtrace.report.page.assets import viewer_text
from memtrace.report.page.parts import page, section, size, table, text
from memtrace.units import format_bytes

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RADIUS = 720, 280, 76, 44, 28, 5
_FAR_BUDGET = 3
"""A budget so many times what anything needs is not drawn."""


def render_fixed(found: Fixed, patch: Patch | None = None, *, plan: str | None = None) -> str:
    """Return the page, complete in itself; `plan` is the file that `--apply` takes."""
    first, *rest = answer_lines(found)
    sections = [_ladder(found), _front(found), _to_do(found, patch, plan), _left(found)]
    return page(
        kind="fix",
        title=shlex.join(found.command),
        verdict=" ".join([first, *rest]),
        footer="each row was run so" if found.is_verified else "nothing was run: what a trace alone tells",
        style="\n".join([viewer_text("whatif.css"), viewer_text("fix.css"), *_lengths(found), ""]),
        sections=[one for one in sections if one],
    )


def _scale(found: Fixed) -> int:
    largest = max(one.needs.reserved_bytes for one in found.rungs)
    return max(largest, found.budget_bytes if found.budget_bytes <= _FAR_BUDGET * largest else 0, 1)


def _ladder(found: Fixed) -> str:
    keys = [
        '<span><span class="swatch allocated"></span>peak allocated</span>',
        '<span><span class="swatch wasted hatched"></span>reserved beyond that</span>',
        '<span><span class="limit"></span>budget</span>',
        '<span><span class="swatch failed"></span>does not fit</span>',
    ]
    bars = "".join(_bar(found, at, rung) for at, rung in enumerate(found.rungs))
    front = {id(one) for one in found.front}
    rows = [
        [
            str(number),
            text(one.title),
            size(one.needs.peak_bytes),
            size(one.needs.reserved_bytes),
            _time(one),
            {None: "–", True: "equal", False: "differ"}[one.losses_equal],
            "yes" if one.needs.fits else "no",
            "★" if id(one) in front else "",
        ]
        for number, one in enumerate(found.rungs, 1)
    ]
    heads = ["", "changes", "peak", "reserved", "time", "losses", "fits", "best for its memory"]
    first = "the cheapest that fits first" if found.best is not None else "the smallest first"
    return section(
        "ladder",
        f"What was run, {first}" if found.is_verified else "What the trace tells",
        f'<p class="at-peak">{text(peak_line(found))}</p>'
        f'<div class="chart"><div class="legend">{"".join(keys)}</div><ul class="rows">{bars}</ul></div>'
        + table(heads, rows, number_columns=range(2, 5)),
    )


def _time(rung: Rung) -> str:
    return "–" if rung.slowdown is None else f"{rung.slowdown:+.1%}"


def _bar(found: Fixed, at: int, rung: Rung) -> str:
    needs = rung.needs
    limit = '<span class="limit"></span>' if found.budget_bytes <= _scale(found) else ""
    kinds = ("" if at else " first") + ("" if needs.fits else " failed")
    label = f"{format_bytes(needs.peak_bytes)} allocated, {format_bytes(needs.reserved_bytes)} reserved"
    return (
        f'<li class="row{kinds}" id="rung-{at}"><span class="name"><span class="rung">{at + 1}</span> '
        f"{text(rung.title)}</span>"
        f'<span class="track" role="img" title="{text(label)}" aria-label="{text(label)}">'
        f'<span class="allocated"></span><span class="wasted"></span>{limit}</span>'
        f'<span class="value number">{text(format_bytes(needs.reserved_bytes))}</span></li>'
    )


def _lengths(found: Fixed) -> list[str]:
    scale = _scale(found)
    rules = []
    for at, rung in enumerate(found.rungs):
        peak, reserved = rung.needs.peak_bytes, rung.needs.reserved_bytes
        rules += [
            f"#rung-{at} .allocated{{width:{100 * min(peak, reserved) / scale:.3f}%}}",
            f"#rung-{at} .wasted{{width:{100 * max(reserved - peak, 0) / scale:.3f}%}}",
        ]
    return [*rules, f".row .limit{{left:{100 * found.budget_bytes / scale:.3f}%}}"]


class _Plot:
    """Where bytes and shares of time are drawn."""

    def __init__(self, found: Fixed, times: list[float]) -> None:
        self.most = _scale(found)
        self.low, self.high = min(0.0, *times), max(0.01, *times)

    def across(self, num_bytes: int) -> str:
        """Return where bytes are."""
        return f"{_LEFT + (_WIDTH - _LEFT - _RADIUS) * num_bytes / self.most:.1f}"

    def down(self, slowdown: float | None, below: int = 0) -> str:
        """Return where a share of time is, or so far below it."""
        share = (self.high - (slowdown or 0.0)) / (self.high - self.low)
        return f"{_TOP + (_HEIGHT - _TOP - _BOTTOM) * share + below:.1f}"

    def at(self, rung: Rung) -> str:
        """Return where the mark of a set of changes is."""
        return f"{self.across(rung.needs.reserved_bytes)},{self.down(rung.slowdown)}"


def _front(found: Fixed) -> str:
    """Return memory against time, a mark for each set of changes whose time is known; nothing of fewer than two."""
    timed = [(number, one) for number, one in enumerate(found.rungs, 1) if one.slowdown is not None]
    if len(timed) < 2:
        return ""
    plot = _Plot(found, [one.slowdown or 0.0 for _, one in timed])
    floor = _HEIGHT - _BOTTOM
    drawn = (
        '<div class="legend"><span><span class="swatch allocated"></span>fits</span>'
        '<span><span class="swatch failed"></span>does not fit</span><span><span class="limit"></span>budget</span>'
        "<span>line: no other needs both less memory and less time</span></div>"
        f'<svg class="front" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Memory against time of each set '
        f'of changes, numbered as in the table above"><line x1="{_LEFT}" x2="{_WIDTH}" y1="{floor}" y2="{floor}"/>'
        f'<line x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{floor}"/>'
        f'<polyline points="{" ".join(plot.at(one) for one in found.front)}"/>'
        f"{_budget(found, plot)}{''.join(_mark(number, one, plot) for number, one in timed)}{_labels(plot)}</svg>"
    )
    return section("front", "Memory against time", f'<div class="chart">{drawn}</div>')


def _mark(number: int, rung: Rung, plot: _Plot) -> str:
    needs, (x, y) = rung.needs, plot.at(rung).split(",")
    return (
        f'<circle class="{"on" if needs.fits else "failed"}" r="{_RADIUS}" cx="{x}" cy="{y}">'
        f"<title>{text(rung.title)}: {text(format_bytes(needs.reserved_bytes))}, {_time(rung)} time</title></circle>"
        f'<text class="rung" x="{x}" dx="9" y="{plot.down(rung.slowdown, -7)}">{number}</text>'
    )


def _budget(found: Fixed, plot: _Plot) -> str:
    if found.budget_bytes > plot.most:
        return ""
    x = plot.across(found.budget_bytes)
    return (
        f'<line class="budget" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
        f"<title>budget {text(format_bytes(found.budget_bytes))}</title></line>"
    )


def _labels(plot: _Plot) -> str:
    times = "".join(
        f'<text x="{_LEFT - 8}" y="{plot.down(one, 4)}" text-anchor="end">{one:+.0%}</text>'
        for one in (plot.high, plot.low)
    )
    return (
        f'<text x="{_LEFT}" y="14">time against the plain program</text>{times}'
        f'<text x="{_LEFT}" y="{_HEIGHT - 14}">0</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 14}" text-anchor="end">{text(format_bytes(plot.most))} reserved</text>'
    )


def _to_do(found: Fixed, patch: Patch | None, plan: str | None) -> str:
    best = found.best
    if best is None or best.changes.is_nothing:
        return ""
    by_hand = []
    environment = environment_of(best.changes)
    if environment:
        by_hand.append(("set", "\n".join(f"export {name}={value}" for name, value in environment.items()), "shell"))
    if patch is not None:
        by_hand.append(("change the program, by git apply or patch -p1", patch.text, "code"))
    changes = best.changes if patch is None else patch.left
    if code := code_of(changes, has_statistics=found.program.has_statistics):
        by_hand.append(("write", code, "code"))
    parts = []
    if plan is not None:
        command = f"memtrace fix --apply {shlex.quote(plan)} -- {shlex.join(found.command)}"
        parts.append(_block("Run it so, unchanged", command, "shell"))
    for at, (head, body, kind) in enumerate(by_hand):
        word = "And " if at else "Or " if parts else ""
        parts.append(_block(f"{word}{head}" if word else head.capitalize(), body, kind))
    return section("to-do", "What to do", f'<div class="to-do">{"".join(parts)}</div>')


def _block(head: str, code: str, kind: str) -> str:
    return f'<h3>{text(head)}</h3><pre class="{kind}" tabindex="0">{text(code)}</pre>'


def _left(found: Fixed) -> str:
    """Return what did not hold, what is left as it is, and what is assumed."""
    rows = [[text(one.title), "did not hold", text(one.why)] for one in found.missed]
    by_reason = Counter(found.refused.values())
    first = {why: name for name, why in reversed(list(found.refused.items()))}
    rows += [
        [text(first[why] if count == 1 else f"{first[why]} and {count - 1} more"), "left as it is", text(why)]
        for why, count in by_reason.most_common()
    ]
    notes = "".join(f"<li>{text(note)}</li>" for note in found.notes)
    told = table(["changes or module", "", "reason"], rows, number_columns=range(0)) if rows else ""
    if notes:
        told += f'<ul class="notes">{notes}</ul>'
    return section("left", "What was not done, and why", told) if told else ""
