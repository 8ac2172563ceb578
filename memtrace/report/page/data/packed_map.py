"""Every allocation as a viewer reads it: compressed columns in base64, and the tables that they point into.

In: `AllocationMap`. Out: `PackedMap`. viewers/README.md lists the columns for readers of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memtrace.analysis.results.report import AllocationMap
from memtrace.report.drawing.palette import category_ink, phase_ink, stack_order
from memtrace.report.page.data.packed_columns import PackedColumns
from memtrace.schema.frames import frame_class, short_place
from memtrace.schema.names import Decision

_DECISION_LABELS = {
    Decision.OWNER.value: "certain: its owner is known",
    Decision.HOOK.value: "certain: seen while it was used",
    Decision.ANNOTATION.value: "inferred from what the profile calls it",
    Decision.STACK_RULE.value: "inferred from the code that asked for it",
    Decision.LIFETIME_RULE.value: "inferred from when it came and went",
    Decision.UNKNOWN.value: "unattributed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedMap:
    """One map, packed."""

    view: dict[str, Any]
    """What JSON holds: the columns in order with their types, and the tables."""
    data: str
    """Base64 of the zlib stream of all columns, one after the other."""


def packed_map(found: AllocationMap) -> PackedMap:
    """Return the map as a page holds it."""
    columns = PackedColumns()
    _add_allocations(columns, found)
    columns.add("event", found.event, ascending=True, optional=True)
    if found.time_ns is not None:
        columns.add("time", found.time_ns - found.time_ns[0], ascending=True)
    columns.add("stackFrame", found.stack_frame)
    columns.add("stackParent", found.stack_parent, optional=True)
    segments = found.segments
    for name, values in (
        ("segmentStart", segments.start),
        ("segmentEnd", segments.end),
        ("segmentSize", segments.size_bytes),
        ("segmentPlace", segments.place_bytes),
    ):
        columns.add(name, values)
    columns.add("segmentFact", segments.segment, optional=True)
    view = {
        "num_moments": found.num_moments,
        "num_allocations": len(found.start),
        "has_times": found.time_ns is not None,
        "has_blocks": found.block_bytes is not None,
        "columns": columns.specs,
        **_tables(found),
    }
    return PackedMap(view=view, data=columns.data())


def _add_allocations(columns: PackedColumns, found: AllocationMap) -> None:
    columns.add("start", found.start, ascending=True)
    # As durations: most allocations are short, whenever they are.
    columns.add("inUse", found.in_use_end - found.start)
    columns.add("pending", found.end - found.in_use_end)
    columns.add("initial", found.is_initial.astype("i8"))
    columns.add("size", found.size_bytes)
    if found.block_bytes is not None:
        columns.add("rounding", found.block_bytes - found.size_bytes)
    columns.add("place", found.place_bytes)
    columns.add("category", found.category.astype("i8"))
    columns.add("decision", found.decision.astype("i8"))
    for name, values in (
        ("stack", found.stack),
        ("module", found.module),
        ("owner", found.owner),
        ("saved", found.saved),
        ("step", found.step),
    ):
        columns.add(name, values, optional=True)


def _tables(found: AllocationMap) -> dict[str, Any]:
    inks = [category_ink(name) for name in found.categories]
    order = stack_order(list(found.categories))
    return {
        "categories": [
            {"name": name, "label": ink.label, "color": ink.color, "hatched": ink.hatched, "order": order.index(name)}
            for name, ink in zip(found.categories, inks, strict=True)
        ],
        "decisions": [_DECISION_LABELS.get(name, name) for name in found.decisions],
        "modules": list(found.modules),
        "owners": [list(one) for one in found.owners],
        "saved_for": [list(one) for one in found.saved_for],
        "frames": list(found.frames),
        "frame_class": [frame_class(frame) for frame in found.frames],
        "frame_names": [short_place(frame) for frame in found.frames],
        # Addresses are text: those of a device may need all of 64 bits.
        "ranges": [[f"{one.address:#x}", one.place_bytes, one.size_bytes] for one in found.ranges],
        "segment_facts": [[one.stream, one.pool, one.is_expandable] for one in found.segment_facts],
        "base": [
            [int(start), int(num_bytes)] for start, num_bytes in zip(found.epoch_start, found.base_bytes, strict=True)
        ],
        "peaks": dict(found.peaks),
        "spans": [_span(span) for span in found.spans],
    }


def _span(span: Sequence[Any]) -> list[Any]:
    first, last, lane, name = span
    if lane == "step":
        return [first, last, lane, "before step 1" if name == "0" else f"step {name}", "", False]
    ink = phase_ink(name)
    return [first, last, lane, ink.label, ink.color, ink.hatched]
