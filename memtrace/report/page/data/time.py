"""The time of a rank as a page shows it: where the whole goes, a row a step, and cards where no memory was recorded."""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.results.report import RankReport
from memtrace.analysis.results.time import TimeResult, TimeSplit
from memtrace.report.drawing.palette import TIMES
from memtrace.report.drawing.time_rows import collective_text, remarks, time_columns, windows_text
from memtrace.report.page.data.lanes import lanes_view
from memtrace.report.page.data.values import Arrays, View, percent, share_of
from memtrace.units import format_ns

MAX_STEPS = 1000
"""Steps that a page lists for one rank; the rest is counted."""


def time_view(rank: RankReport, arrays: Arrays) -> View | None:
    """Return where the time of a rank goes; `None` where no activity of a GPU was recorded."""
    time = rank.time
    if time is None:
        return None
    columns = time_columns(time)
    shown = time.steps[:MAX_STEPS]
    longest = max((_busy_window(split) for split in shown), default=0)
    return {
        **whole_view(time),
        "columns": [label for label, _ in columns],
        "rows": [
            {
                "label": str(split.step),
                "values": [cell(split) for _, cell in columns],
                "share": share_of(_busy_window(split), longest),
                "parts": _parts(split),
            }
            for split in shown
        ],
        "total": [cell(time.whole) for _, cell in columns],
        "left_out": len(time.steps) - len(shown),
        "about": windows_text(time),
        "lanes": lanes_view(rank, arrays),
        "remarks": [*remarks(time), *(collective_text(one) for one in time.collectives)],
    }


def whole_view(time: TimeResult) -> View:
    """Return where the time of a whole profile goes."""
    return {"window": format_ns(time.whole.window_ns), "parts": _parts(time.whole)}


def _busy_window(split: TimeSplit) -> int:
    """Return what the parts of a window add up to: its length, and what its work took beyond it."""
    return split.window_ns + split.outside_ns


def _parts(split: TimeSplit) -> list[View]:
    """Return the parts of a window, each moment in one of them; those without any time are left out."""
    parts = {
        "compute": split.compute_ns - split.hidden_ns,
        "hidden": split.hidden_ns,
        "exposed": split.exposed_ns,
        "copy": split.copy_only_ns,
        "other": split.other_ns,
        "unseen": split.unseen_ns,
        "idle": split.idle_ns,
    }
    total = _busy_window(split)
    return [
        {"name": name, "label": TIMES[name].label, "color": TIMES[name].color, "hatched": TIMES[name].hatched}
        | {"value": format_ns(part_ns), "percent": percent(part_ns, total), "share": share_of(part_ns, total)}
        for name, part_ns in parts.items()
        if part_ns > 0
    ]


def time_cards(time: TimeResult) -> list[View]:
    """Return the cards of a rank of which the time was recorded, and no memory."""
    whole = time.whole
    parts: Sequence[tuple[str, str, int, str]] = (
        ("compute", "Compute", whole.compute_ns, _beside(whole)),
        ("exposed", "Communication, nothing computed", whole.exposed_ns, _hidden(whole)),
        ("copies", "Copies alone", whole.copy_only_ns, f"{format_ns(whole.copy_ns)} of copies and fills"),
        ("idle", "Idle", whole.idle_ns, "nothing runs on the GPU"),
    )
    steps = f"{len(time.steps):,} steps" if time.steps else "no steps marked"
    first = {"key": "window", "label": "On the GPU", "value": format_ns(whole.window_ns)}
    cards: list[View] = [first | {"detail": f"{whole.num_activities:,} activities · {steps}"}]
    for key, label, part_ns, detail in parts:
        value = percent(part_ns, whole.window_ns)
        card = {"key": key, "label": label, "value": value, "meter": share_of(part_ns, whole.window_ns)}
        cards.append(card | {"detail": f"{format_ns(part_ns)} · {detail}"})
    return cards


def _beside(whole: TimeSplit) -> str:
    return f"{format_ns(whole.hidden_ns)} beside communication" if whole.communication_ns else "kernels"


def _hidden(whole: TimeSplit) -> str:
    if whole.hidden_share is None:
        return "none was recorded"
    return f"{percent(whole.hidden_ns, whole.communication_ns)} of it all is hidden"
