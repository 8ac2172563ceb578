"""What-if results as one HTML file that needs nothing else: complete without its script, no network.

In: `WhatIf`s, one a rank and device. Out: the text of the page. Every number is a field of a result; only the lengths
of bars are worked out, as rules of the style sheet. A content security policy lets in this style sheet and this script,
named by their hashes, and nothing else: not even a style attribute.
"""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.allocator.results import Fidelity, WhatIf, WhatIfRow
from memtrace.report.answers.whatif import MODEL_NOTE, failure_text, proof_text
from memtrace.report.page.assets import viewer_text
from memtrace.report.page.parts import page, text
from memtrace.units import format_bytes

MAX_NAMES = 3
"""Rows that a verdict names; the rest is in the table."""
FAR_CAPACITY = 3
"""A capacity so many times the largest reserved is not drawn: bars beside it would be too short to compare."""


def render_whatif(results: Sequence[WhatIf], *, title: str) -> str:
    """Return the page of some results, complete in itself; `title` is what was read."""
    alone = len(results) == 1
    sections = [_section(at, result, alone=alone) for at, result in enumerate(results)]
    lengths = [rule for at, result in enumerate(results) for rule in _lengths(at, result)]
    return page(
        kind="what if",
        title=title,
        verdict=verdict(results),
        footer="allocated: whole blocks in use · reserved: all segments · wasted: peak reserved less peak allocated",
        style="\n".join([viewer_text("whatif.css"), *lengths, ""]),
        sections=sections,
    )


def verdict(results: Sequence[WhatIf]) -> str:
    """Return the sentence that matters most: what to set, or which rows fit."""
    verdicts = [_verdict(result) for result in results]
    if len(set(verdicts)) == 1:
        return verdicts[0]
    if any(result.advice is not None for result in results):
        return f"What is best differs between the {len(results)} devices: each is below."
    if all(row.fits for result in results for row in result.rows):
        return f"Everything that was tried fits on each of the {len(results)} devices."
    return f"Not everything that was tried fits on each of the {len(results)} devices."


def _verdict(result: WhatIf) -> str:
    """Return the same for one device."""
    reference, changes = _parted(result)
    failing = [row for row in changes if not row.fits]
    if result.advice is not None:
        return f"{result.advice} Does not fit: {_names(failing)}." if failing else result.advice
    if not changes:
        at_most = f"{format_bytes(reference.peak_allocated_bytes)} allocated, at most "
        return f"The recording itself: at most {at_most}{format_bytes(reference.max_reserved_bytes)} reserved."
    if failing:
        fitting = [row for row in changes if row.fits]
        return (f"Fits: {_names(fitting)}. " if fitting else "") + f"Does not fit: {_names(failing)}."
    least = min(changes, key=lambda row: row.max_reserved_bytes)
    reserved = format_bytes(reference.max_reserved_bytes)
    if least.max_reserved_bytes >= reference.max_reserved_bytes:
        return f"Everything that was tried fits; nothing reserves less than the recording itself, {reserved}."
    return f"With {least.name} at most {format_bytes(least.max_reserved_bytes)} are reserved, instead of {reserved}."


def _parted(result: WhatIf) -> tuple[WhatIfRow, list[WhatIfRow]]:
    """Return the row that changes are to be compared with, and the changes."""
    recorded, *others = result.rows
    # The recording once more, started as tidily as the changes are, bears the baseline's name and a remark.
    same = [row for row in others if row.name.startswith(f"{recorded.name}, ")]
    return (same or [recorded])[0], [row for row in others if row not in same]


def _names(rows: Sequence[WhatIfRow]) -> str:
    names = [row.name for row in rows[:MAX_NAMES]]
    return " · ".join([*names, f"{len(rows) - MAX_NAMES} more"] if len(rows) > MAX_NAMES else names)


def _section(at: int, result: WhatIf, *, alone: bool) -> str:
    rank = "" if result.rank is None else f"rank {result.rank} · "
    own_verdict = "" if alone else f'<p class="device-verdict">{text(_verdict(result))}</p>'
    model = f'<p class="model muted">{text(MODEL_NOTE)}</p>' if any(row.is_model for row in result.rows) else ""
    return (
        f'<section id="device-{at}" aria-labelledby="device-{at}-heading"><div class="section-head">'
        f'<h2 id="device-{at}-heading">{text(rank + result.device)}</h2>{own_verdict}</div>\n'
        f"{_proof(result.fidelity)}\n{_chart(at, result)}\n"
        f'<div class="panel">{_table(result.rows)}{model}</div>\n</section>'
    )


def _proof(fidelity: Fidelity) -> str:
    kind, mark = ("exact", "✓") if fidelity.is_exact else ("partial", "!")
    divergence = fidelity.first_divergence
    lines = [_capitalized(proof_text(fidelity))]
    lines += [f"First divergence: {divergence}"] if divergence is not None else []
    texts = "".join(f"<p{' class=muted' if number else ''}>{text(line)}</p>" for number, line in enumerate(lines))
    return (
        f'<div class="panel proof {kind}"><span class="mark" aria-hidden="true">{mark}</span><div>{texts}</div></div>'
    )


# Bars


def _chart(at: int, result: WhatIf) -> str:
    keys = [
        '<span><span class="swatch allocated"></span>peak allocated</span>',
        '<span><span class="swatch wasted hatched"></span>wasted: reserved beyond that</span>',
    ]
    if any(row.capacity_bytes is not None for row in result.rows):
        keys.append('<span><span class="limit"></span>capacity</span>')
    if not all(row.fits for row in result.rows):
        keys.append('<span><span class="swatch failed"></span>does not fit: as far as it came</span>')
    scale = _scale(result)
    bars = "".join(_bar(f"bar-{at}-{number}", number, row, scale) for number, row in enumerate(result.rows))
    return f'<div class="panel chart"><div class="legend">{"".join(keys)}</div><ul class="rows">{bars}</ul></div>'


def _bar(key: str, number: int, row: WhatIfRow, scale: int) -> str:
    reserved, capacity = format_bytes(row.max_reserved_bytes), row.capacity_bytes
    limit = '<span class="limit"></span>' if capacity is not None and capacity <= scale else ""
    value = reserved if capacity is None else f"{reserved} of {format_bytes(capacity)}"
    kinds = ("" if number else " first") + ("" if row.fits else " failed")
    label = f"{format_bytes(row.peak_allocated_bytes)} allocated, {format_bytes(row.wasted_bytes)} wasted"
    return (
        f'<li class="row{kinds}" id="{key}"><span class="name">{text(row.name)}</span>'
        f'<span class="track" role="img" title="{text(label)}" aria-label="{text(label)}">'
        f'<span class="allocated"></span><span class="wasted"></span>{limit}</span>'
        f'<span class="value number">{text(value)}</span></li>'
    )


def _lengths(at: int, result: WhatIf) -> list[str]:
    """Return the style rules for the lengths of a device's bars."""
    scale = _scale(result)
    rules = []
    for number, row in enumerate(result.rows):
        lengths = {"allocated": ("width", row.peak_allocated_bytes), "wasted": ("width", row.wasted_bytes)}
        if row.capacity_bytes is not None and row.capacity_bytes <= scale:
            lengths["limit"] = ("left", row.capacity_bytes)
        rules += [
            f"#bar-{at}-{number} .{name}{{{side}:{100 * num_bytes / scale:.3f}%}}"
            for name, (side, num_bytes) in lengths.items()
        ]
    return rules


def _scale(result: WhatIf) -> int:
    """Return the bytes that the whole width stands for."""
    reserved = max(row.max_reserved_bytes for row in result.rows)
    capacities = [row.capacity_bytes for row in result.rows if row.capacity_bytes is not None]
    return max([1, reserved, *(one for one in capacities if one <= reserved * FAR_CAPACITY)])


# Table


def _table(rows: Sequence[WhatIfRow]) -> str:
    heads = "".join(
        f'<th scope="col" class="number">{name}</th>'
        for name in ("peak allocated", "peak reserved", "wasted", "segments made", "retries")
    )
    body = "".join(_row(number, row) for number, row in enumerate(rows))
    return (
        '<div class="scroll"><table class="whatif"><thead><tr><th scope="col">setting</th>'
        f'{heads}<th scope="col">fits</th></tr></thead><tbody>{body}</tbody></table></div>'
    )


def _row(number: int, row: WhatIfRow) -> str:
    sizes = (row.peak_allocated_bytes, row.max_reserved_bytes, row.wasted_bytes)
    cells = [
        f'<td class="number" data-bytes="{size}" title="{size:,} bytes">{text(format_bytes(size))}</td>'
        for size in sizes
    ]
    cells += [f'<td class="number">{count:,}</td>' for count in (row.num_device_mallocs, row.num_alloc_retries)]
    cells.append('<td class="fits">fits</td>' if row.fits else '<td class="fits no">does not fit</td>')
    kinds = ("" if number else "first ") + ("failing" if row.oom is not None else "")
    tag = "" if row.is_model else '<span class="tag">as recorded</span>'
    line = f'<tr class="{kinds.strip()}"><th scope="row">{text(row.name)}{tag}</th>{"".join(cells)}</tr>'
    if row.oom is None:
        return line
    return f'{line}<tr class="why"><td colspan="7">{text(_capitalized(failure_text(row.oom)))}</td></tr>'


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
