"""What the peak is made of, as a page shows it: by category, against the other peaks, by module and by stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memtrace.analysis.results.report import ModuleRow, Peak, RankReport, StackRow, State
from memtrace.report.drawing.kinds import kinds
from memtrace.report.drawing.palette import category_ink, stack_order
from memtrace.report.page.data.values import View, percent, share_of, signed
from memtrace.schema.frames import is_python, own_frames, short_place
from memtrace.schema.names import Category, Decision
from memtrace.units import format_bytes

MAX_ROWS = 300
"""Rows of modules and of stacks that a page holds for one rank; the rest is counted."""
_DECISIONS = (
    ("exact", "certain, from an owner or seen in use", (Decision.OWNER.value, Decision.HOOK.value)),
    ("inferred", "inferred", (Decision.ANNOTATION.value, Decision.STACK_RULE.value, Decision.LIFETIME_RULE.value)),
    ("unattributed", "unattributed", (Decision.UNKNOWN.value,)),
)


def breakdown(rank: RankReport) -> View:
    """Return bytes by category at the peak, with the first-step and steady-state peaks beside it."""
    states = [
        ("At the peak", rank.peak),
        ("First-step peak", rank.first_step_peak),
        ("Steady-state peak", rank.steady_state_peak),
    ]
    columns = [(label, state) for label, state in states if state is not None]
    total = sum(rank.peak.by_category.values())
    names = {name for _, state in columns for name in state.by_category}
    rows = []
    for name in sorted(
        names, key=lambda name: (name == Category.UNKNOWN.value, -rank.peak.by_category.get(name, 0), name)
    ):
        ink, num_bytes = category_ink(name), rank.peak.by_category.get(name, 0)
        values = [format_bytes(state.by_category.get(name, 0)) for _, state in columns]
        row = {"category": name, "label": ink.label, "color": ink.color, "hatched": ink.hatched, "values": values}
        rows.append(row | {"percent": percent(num_bytes, total), "share": share_of(num_bytes, total)})
    return {
        "columns": [label for label, _ in columns],
        "rows": rows,
        "totals": _state_totals([state for _, state in columns]),
        "decisions": _decisions(rank.peak.by_decision),
    }


def _state_totals(states: Sequence[State]) -> list[View]:
    """Return the rows below the categories: their sum, and what the allocator and the device say beside it."""
    rows = (
        ("requested", [state.requested_bytes for state in states]),
        ("allocated, with rounding", [state.allocated_bytes for state in states]),
        ("awaiting another stream", [state.pending_free_bytes for state in states]),
        ("reserved", [state.reserved_bytes for state in states]),
        ("device, all processes", [state.device_used_bytes for state in states]),
        ("outside torch", [state.non_torch_bytes for state in states]),
    )
    # Nothing awaiting another stream is the rule and no news; nothing known is said by the cards.
    shown = [(label, values) for label, values in rows if any(values) or (label == "requested" and None not in values)]
    if len(shown) > 1 and shown[0][1] == shown[1][1]:
        shown[:2] = [("requested = allocated", shown[0][1])]
    return [{"label": label, "values": [format_bytes(value) for value in values]} for label, values in shown]


def _decisions(by_decision: Mapping[str, int]) -> list[View]:
    """Return how sure the categories are: exact, inferred, unattributed."""
    total = sum(by_decision.values())
    named = {name for _, _, names in _DECISIONS for name in names}
    views = []
    for key, label, names in _DECISIONS:
        num_bytes = sum(by_decision.get(name, 0) for name in names)
        if key == "inferred":
            num_bytes += sum(other for name, other in by_decision.items() if name not in named)
        share = {"percent": percent(num_bytes, total), "share": share_of(num_bytes, total)}
        views.append({"key": key, "label": label, "value": format_bytes(num_bytes), **share})
    return views


def changes(first: Peak | None, steady: Peak | None) -> View | None:
    """Return bytes by category at the first-step and the steady-state peak, and how they differ, most first."""
    if first is None or steady is None:
        return None
    before, after = first.by_category, steady.by_category
    rows = []
    names = sorted({*before, *after}, key=lambda name: (-abs(after.get(name, 0) - before.get(name, 0)), name))
    for name in names:
        ink, pair = category_ink(name), (before.get(name, 0), after.get(name, 0))
        view = {"category": name, "label": ink.label, "color": ink.color, "hatched": ink.hatched}
        rows.append(view | {"values": [format_bytes(one) for one in pair], "change": signed(pair[1] - pair[0])})
        rows[-1]["same"] = pair[0] == pair[1]
    total = [format_bytes(first.requested_bytes), format_bytes(steady.requested_bytes)]
    if first.requested_bytes is not None and steady.requested_bytes is not None:
        total.append(signed(steady.requested_bytes - first.requested_bytes))
    return {"rows": rows, "total": total}


def modules_view(rows: Sequence[ModuleRow]) -> View:
    """Return bytes at the peak by module: rows of a table, from which the icicle is drawn too."""
    total, largest = sum(row.num_bytes for row in rows), max((row.num_bytes for row in rows), default=0)
    views = []
    for row in rows[:MAX_ROWS]:
        parts = _parts(row)
        name = "outside any module" if row.module is None else row.module
        views.append(_row(row, total, largest) | {"module": name, "is_module": row.module is not None, "parts": parts})
    return {"rows": views, "left_out": max(0, len(rows) - MAX_ROWS)}


def _parts(row: ModuleRow | StackRow) -> list[View]:
    """Return what the bytes of a row are, in the order of the legend."""
    return [_part(row, name) for name in stack_order(list(row.by_category))]


def _part(row: ModuleRow | StackRow, category: str) -> View:
    ink, num_bytes = category_ink(category), row.by_category[category]
    part = {"label": ink.label, "color": ink.color, "hatched": ink.hatched, "bytes": num_bytes}
    return part | {"share": share_of(num_bytes, row.num_bytes), "value": format_bytes(num_bytes)}


def stacks_view(rows: Sequence[StackRow]) -> View:
    """Return bytes at the peak by stack, with the program's own line and the innermost one apart."""
    total, largest = sum(row.num_bytes for row in rows), max((row.num_bytes for row in rows), default=0)
    views = []
    for row in rows[:MAX_ROWS]:
        ink = category_ink(row.category)
        kind = {"category": kinds(row.by_category), "color": ink.color, "hatched": ink.hatched, "parts": _parts(row)}
        python = [frame for frame in row.frames if is_python(frame)]
        frames = {
            "headline": _name(next(iter(own_frames(row.frames)), None)),
            "innermost": _name(next(iter(python or row.frames), None)),
            "frames": list(row.frames),
        }
        views.append(_row(row, total, largest) | kind | frames)
    return {"rows": views, "left_out": max(0, len(rows) - MAX_ROWS)}


def _name(frame: str | None) -> str | None:
    return None if frame is None else short_place(frame)


def _row(row: ModuleRow | StackRow, total: int, largest: int) -> View:
    """Return what both tables show of a row; its bar is as long as its share of the largest row."""
    share = {"percent": percent(row.num_bytes, total), "share": share_of(row.num_bytes, largest)}
    return {"value": format_bytes(row.num_bytes), "allocations": f"{row.num_allocations:,}", **share}
