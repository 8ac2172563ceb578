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
from memtrace.report.answers.fixing import answer_lines
from memtrace.report.page.assets import viewer_text
from memtrace.report.page.parts import page, section, size, table, text
from memtrace.units import format_bytes

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RADIUS = 720, 260, 70, 40, 16, 5
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
            text(one.title),
            size(one.needs.peak_bytes),
            size(one.needs.reserved_bytes),
            _time(one),
            {None: "–", True: "equal", False: "differ"}[one.losses_equal],
            "yes" if one.needs.fits else "no",
            "★" if id(one) in front else "",
        ]
        for one in found.rungs
    ]
    heads = ["changes", "peak", "reserved", "time", "losses", "fits", "best for its memory"]
    return section(
        "ladder",
        "What was run, the cheapest that fits first" if found.is_verified else "What the trace tells",
        f'<div class="chart"><div class="legend">{"".join(keys)}</div><ul class="rows">{bars}</ul></div>'
        + table(heads, rows, number_columns=range(1, 4)),
    )


def _time(rung: Rung) -> str:
    return "–" if rung.slowdown is None else f"{rung.slowdown:+.1%}"


def _bar(found: Fixed, at: int, rung: Rung) -> str:
    needs = rung.needs
    limit = '<span class="limit"></span>' if found.budget_bytes <= _scale(found) else ""
    kinds = ("" if at else " first") + ("" if needs.fits else " failed")
    label = f"{format_bytes(needs.peak_bytes)} allocated, {format_bytes(needs.reserved_bytes)} reserved"
    return (
        f'<li class="row{kinds}" id="rung-{at}"><span class="name">{text(rung.title)}</span>'
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


def _front(found: Fixed) -> str:
    """Return memory against time, a mark for each set of changes whose time is known; nothing of fewer than two."""
    timed = [one for one in found.rungs if one.slowdown is not None]
    if len(timed) < 2:
        return ""
    most = _scale(found)
    times = [one.slowdown or 0.0 for one in timed]
    low, high = min(0.0, *times), max(0.01, *times)
    front = {id(one) for one in found.front}

    def across(num_bytes: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RADIUS) * num_bytes / most

    def down(slowdown: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - slowdown) / (high - low)

    def kind(one: Rung) -> str:
        return "failed" if not one.needs.fits else "on" if id(one) in front else "off"

    marks = "".join(
        f'<circle class="{kind(one)}" r="{_RADIUS}" '
        f'cx="{across(one.needs.reserved_bytes):.1f}" cy="{down(one.slowdown or 0.0):.1f}">'
        f"<title>{text(one.title)}: {text(format_bytes(one.needs.reserved_bytes))}, {_time(one)} time</title></circle>"
        for one in timed
    )
    floor = _HEIGHT - _BOTTOM
    budget = (
        f'<line class="budget" x1="{across(found.budget_bytes):.1f}" x2="{across(found.budget_bytes):.1f}" '
        f'y1="{_TOP}" y2="{floor}"><title>budget {text(format_bytes(found.budget_bytes))}</title></line>'
        if found.budget_bytes <= most
        else ""
    )
    labels = (
        f'<text x="{_LEFT - 8}" y="{down(high) + 4:.1f}" text-anchor="end">{high:+.0%}</text>'
        f'<text x="{_LEFT - 8}" y="{down(low) + 4:.1f}" text-anchor="end">{low:+.0%}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 12}">0</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 12}" text-anchor="end">{text(format_bytes(most))} reserved</text>'
    )
    drawn = (
        f'<svg class="front" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Memory against time of each set '
        f'of changes, as in the table above"><line x1="{_LEFT}" x2="{_WIDTH}" y1="{floor}" y2="{floor}"/>'
        f'<line x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{floor}"/>{budget}{marks}{labels}</svg>'
    )
    return section("front", "Memory against time", drawn)


def _to_do(found: Fixed, patch: Patch | None, plan: str | None) -> str:
    best = found.best
    if best is None or best.changes.is_nothing:
        return ""
    parts = []
    if plan is not None:
        command = f"memtrace fix --apply {shlex.quote(plan)} -- {shlex.join(found.command)}"
        parts.append(_block("Run it so, unchanged", command))
    environment = environment_of(best.changes)
    if environment:
        parts.append(_block("Set", "\n".join(f"export {name}={value}" for name, value in environment.items())))
    if patch is not None:
        parts.append(_block("Change the program, by git apply or patch -p1", patch.text))
    changes = best.changes if patch is None else patch.left
    if code := code_of(changes, has_statistics=found.program.has_statistics):
        parts.append(_block("Write", code))
    return section("to-do", "What to do", f'<div class="to-do">{"".join(parts)}</div>')


def _block(head: str, code: str) -> str:
    return f'<h3>{text(head)}</h3><pre tabindex="0">{text(code)}</pre>'


def _left(found: Fixed) -> str:
    """Return what did not hold, what is left as it is, and what is assumed."""
    rows = [[text(one.title), "did not hold", text(one.why)] for one in found.missed]
    by_reason = Counter(found.refused.values())
    first = {why: name for name, why in reversed(list(found.refused.items()))}
    rows += [
        [text(first[why] if count == 1 else f"{first[why]} and {count - 1} more"), "left as it is", text(why)]
        for why, count in by_reason.most_common()
    ]
    rows += [["", "note", text(note)] for note in found.notes]
    if not rows:
        return ""
    return section("left", "What was not done, and why", table(["", "", "reason"], rows, number_columns=range(0)))
