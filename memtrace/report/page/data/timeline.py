"""The memory of a rank over time as a page draws it: thinned levels, packed.

The overview draws its picture from them at once. The timeline draws the categories from every allocation where the page
holds those, and else from these. The lines of whole blocks and of reserved memory stand here alone.
"""

from __future__ import annotations

from bisect import bisect_right

from memtrace.analysis.results.report import Timeline
from memtrace.report.drawing.palette import category_ink, stack_order
from memtrace.report.page.data.packed_columns import PackedColumns
from memtrace.report.page.data.values import View


def timeline_view(timeline: Timeline) -> View:
    """Return the levels of a timeline as packed columns: time, event, and a column a curve."""
    columns = PackedColumns()
    has_times = int(timeline.time_ns[-1]) > int(timeline.time_ns[0])
    if has_times:
        columns.add("time", timeline.time_ns - timeline.time_ns[0], ascending=True)
    columns.add("event", timeline.event, ascending=True, optional=True)
    categories: list[View] = []
    for place, name in enumerate(stack_order(list(timeline.by_category))):
        ink = category_ink(name)
        columns.add(f"level{place}", timeline.by_category[name])
        categories.append({"name": name, "label": ink.label, "color": ink.color, "hatched": ink.hatched})
    is_rounded = timeline.allocated_bytes is not None and bool(
        (timeline.allocated_bytes != timeline.requested_bytes).any()
    )
    if timeline.allocated_bytes is not None and is_rounded:
        columns.add("allocated", timeline.allocated_bytes)
    if timeline.reserved_bytes is not None:
        columns.add("reserved", timeline.reserved_bytes)
    times = timeline.time_ns.tolist()
    return {
        # Where times are known, gaps are folded, so that a clock shows what was recorded whatever lay between.
        "axis": "wall" if has_times else "event",
        "categories": categories,
        "is_rounded": is_rounded,
        "breaks": [bisect_right(times, start) for start, _ in timeline.gaps],
        "columns": columns.specs,
        "packed": columns.data(),
    }
