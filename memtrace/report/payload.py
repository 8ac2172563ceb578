"""What the page shows, as data: view dictionaries with numbers already written for people, and arrays for drawing.

In: a `Report`. Out: JSON values, described in viewers/README.md. Every number is a field of a result, or a share or a
sum of such fields. Long arrays are written once, as base64 of little-endian doubles (exact for bytes and ns below
2**53), and the rest refers to them as {"$array": number}.
"""

from __future__ import annotations

import base64
import re
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from memtrace.analysis.results import (
    Finding,
    ModuleRow,
    Note,
    OomResult,
    Peak,
    RankReport,
    Report,
    StackRow,
    State,
    StepResult,
    Timeline,
)
from memtrace.report.figures import Axis, Reference, Series, lanes, module_figure, timeline_figure
from memtrace.report.hiding import hidden_source
from memtrace.report.map_payload import PackedMap
from memtrace.report.markup import visible
from memtrace.report.palette import CATEGORIES, PHASES, category_ink, phase_ink, stack_order
from memtrace.schema.frames import is_python, own_frames
from memtrace.schema.names import Category, Decision
from memtrace.units import format_bytes, format_ns

View = dict[str, Any]

PAYLOAD_VERSION = 1
MAX_ROWS = 300
"""Rows of modules and of stacks that a page holds for one rank; the rest is counted."""
_NOT_RECORDED = "not recorded"
_NAN = float("nan")
_DECISIONS = (
    ("exact", "known from an owner or a hook", (Decision.OWNER.value, Decision.HOOK.value)),
    ("inferred", "inferred", (Decision.ANNOTATION.value, Decision.STACK_RULE.value, Decision.LIFETIME_RULE.value)),
    ("unattributed", "unattributed", (Decision.UNKNOWN.value,)),
)


class Arrays:
    """The arrays of a page, each written once."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def add(self, values: Iterable[float]) -> Reference:
        """Keep an array and return the reference to it."""
        doubles = array("d", values)
        if sys.byteorder == "big":
            doubles.byteswap()
        self.encoded.append(base64.b64encode(doubles.tobytes()).decode("ascii"))
        return {"$array": len(self.encoded) - 1}


def report_payload(
    report: Report, *, version: str, maps: Mapping[int, PackedMap] = MappingProxyType({}), with_source: bool = True
) -> View:
    """Return everything that the page of a report shows; `maps` are those of the ranks at these positions.

    Without `with_source` no path and no source line is in it.
    """
    arrays = Arrays()
    ranks = [
        _rank_view(rank, report.findings, arrays) | _map_view(rank, maps.get(index))
        for index, rank in enumerate(report.ranks)
    ]
    view = {
        "payload_version": PAYLOAD_VERSION,
        "memtrace": version,
        "title": report.title,
        "verdict": report.verdict,
        "notes": _notes(report.warnings),
        "findings": [_finding_view(finding) for finding in report.findings if finding.rank is None],
        "overview": _overview(report.ranks),
        "categories": {name: {"label": ink.label, "hatched": ink.hatched} for name, ink in CATEGORIES.items()},
        "ranks": ranks,
    }
    shown = view if with_source else hidden_source(view)
    return {**visible(shown), "arrays": arrays.encoded}


def _rank_view(rank: RankReport, findings: Sequence[Finding], arrays: Arrays) -> View:
    return {
        "label": rank_label(rank),
        "complete": rank.complete,
        "cards": _cards(rank),
        "oom": None if rank.oom is None else _oom_view(rank.oom),
        "notes": _notes(rank.warnings),
        "findings": [
            _finding_view(finding) for finding in findings if finding.rank is not None and finding.rank == rank.rank
        ],
        "breakdown": _breakdown(rank),
        "timeline": None
        if rank.timeline is None or not len(rank.timeline.event)
        else _timeline_view(rank, rank.timeline, arrays),
        "modules": _modules_view(rank.top_modules),
        "stacks": _stacks_view(rank.top_stacks),
        "steps": _steps_view(rank.steps),
        "changes": _changes(rank.first_step_peak, rank.steady_state_peak),
        "facts": _facts(rank),
    }


def _map_view(rank: RankReport, packed: PackedMap | None) -> View:
    """Return the tables of a rank's map; its columns stand beside the payload."""
    reason = "Nothing is known of any allocation of this device."
    if rank.allocation_map is not None:
        reason = (
            "The allocations of this rank are not in this page, to keep it small: "
            "write a report of this rank's trace alone."
        )
    return {"map": None if packed is None else packed.view, "map_missing": reason}


def rank_label(rank: RankReport) -> str:
    """Return the heading of one rank: "rank 3 · cuda:3", or the device alone outside a distributed run."""
    return rank.device if rank.rank is None else f"rank {rank.rank} · {rank.device}"


def main_bytes(state: State) -> int | None:
    """Return allocated bytes, or requested bytes where allocated is not known; the card says which."""
    return state.requested_bytes if state.allocated_bytes is None else state.allocated_bytes


def _overview(ranks: Sequence[RankReport]) -> list[View]:
    """Return the peaks of all ranks, beside the largest of them."""
    peaks = [main_bytes(rank.peak) for rank in ranks]
    largest = max((peak for peak in peaks if peak is not None), default=0)
    return [
        {
            "label": rank_label(rank),
            "peak": format_bytes(peak),
            "share": _share(peak, largest),
            "complete": rank.complete,
        }
        for rank, peak in zip(ranks, peaks, strict=True)
    ]


# Cards


def _cards(rank: RankReport) -> list[View]:
    kind = "requested" if rank.peak.allocated_bytes is None else "allocated"
    cards = [_card("peak", f"Peak {kind}", format_bytes(main_bytes(rank.peak)), _when(rank.peak, rank))]
    for key, label, peak in (
        ("first-step-peak", "First-step peak", rank.first_step_peak),
        ("steady-state-peak", "Steady-state peak", rank.steady_state_peak),
    ):
        detail = (
            ("no such step in the trace" if rank.steps else "the trace marks no steps")
            if peak is None
            else f"predicted: {_when(peak, rank)}"
            if peak.predicted
            else _when(peak, rank)
        )
        cards.append(_card(key, label, format_bytes(None if peak is None else main_bytes(peak)), detail))
    cards.append(_reserved_card(rank))
    cards.append(_complete_card(rank))
    return cards


def _card(key: str, label: str, value: str, detail: str, **more: Any) -> View:
    return {"key": key, "label": label, "value": value, "detail": detail, **more}


def _reserved_card(rank: RankReport) -> View:
    """Return what was taken from the device, against what it has; host memory has no segments."""
    if rank.max_reserved_bytes is None and rank.device == "cpu":
        return _card("reserved", "Reserved", "none", "the CPU allocator keeps no segments")
    value = format_bytes(rank.max_reserved_bytes)
    if rank.capacity_bytes is None or rank.max_reserved_bytes is None:
        return _card("reserved", "Most reserved", value, f"capacity {format_bytes(rank.capacity_bytes)}")
    share = _share(rank.max_reserved_bytes, rank.capacity_bytes)
    detail = f"{_percent(rank.max_reserved_bytes, rank.capacity_bytes)} of {format_bytes(rank.capacity_bytes)} capacity"
    return _card("reserved", "Most reserved", value, detail, meter=share)


def _complete_card(rank: RankReport) -> View:
    detail = f"{rank.num_events:,} events · {rank.num_allocations:,} allocations"
    if not rank.num_events:
        detail = "no history"
    value = "complete" if rank.complete else "incomplete"
    return _card("completeness", rank.source.capitalize(), value, detail, tone="good" if rank.complete else "warn")


def _when(peak: Peak, rank: RankReport) -> str:
    """Return where in training a peak was: "step 1 · backward · blocks.3.mlp", or its time where no steps are known."""
    words = [] if peak.step is None else [_step_name(peak.step)]
    words += [word for word in (peak.phase, peak.module) if word is not None]
    if peak.predicted:
        words.append("predicted")
    if not words and peak.time_ns is not None and rank.timeline is not None and len(rank.timeline.time_ns):
        words.append(f"{format_ns(peak.time_ns - int(rank.timeline.time_ns[0]))} after the first event")
    if not words:
        return "moment not recorded" if rank.num_events else "the one moment of the snapshot"
    return " · ".join(words)


def _step_name(step: int) -> str:
    return "before step 1" if step == 0 else f"step {step}"


def _oom_view(oom: OomResult) -> View:
    words = [] if oom.step is None else [_step_name(oom.step)]
    words += [word for word in (oom.phase, oom.module) if word is not None]
    causes = {"capacity": "the device is full", "fragmentation": "free memory is in pieces that are too small"}
    rows = (
        ("requested", oom.request_bytes),
        ("free on the device", oom.free_bytes),
        ("reserved but not allocated", oom.reserved_unallocated_bytes),
        ("largest free block", oom.largest_free_block_bytes),
    )
    return {
        "title": _oom_title(oom) + (f" in {' · '.join(words)}" if words else ""),
        "cause": None if oom.cause is None else causes.get(oom.cause, oom.cause),
        "rows": [
            {"label": label, "value": format_bytes(num_bytes)}
            for label, num_bytes in rows
            if num_bytes is not None or not oom.predicted
        ],
        "explanation": list(oom.explanation),
    }


def _oom_title(oom: OomResult) -> str:
    return f"Out of memory on a device of {format_bytes(oom.capacity_bytes)}" if oom.predicted else "Out of memory"


def _notes(notes: Sequence[Note]) -> list[View]:
    return [{"slug": note.slug, "message": note.message, "count": note.count} for note in notes]


def _finding_view(finding: Finding) -> View:
    effects = [("saves", finding.saves_bytes, format_bytes), ("saves", finding.saves_ns, format_ns)]
    effects.append(("new peak", finding.new_peak_bytes, format_bytes))
    where = finding.where or {}
    place = [str(where[key]) for key in ("module", "function") if where.get(key)]
    if where.get("file"):
        place.append(f"{where['file']}:{where['line']}" if where.get("line") else str(where["file"]))
    return {
        "slug": finding.slug,
        "severity": finding.severity,
        "title": finding.title,
        "change": finding.change,
        "cost": finding.cost,
        "effects": [f"{label} {write(value)}" for label, value, write in effects if value is not None],
        "evidence": [
            [_fact_name(str(key)), _fact_text(str(key), value)]
            for key, value in finding.evidence.items()
            if value not in (None, [], {}, ())
        ],
        "where": " · ".join(place),
        "search": _search_words(where),
    }


def _search_words(where: Mapping[str, Any]) -> str | None:
    """Return what finds the allocations of a place on the map: its file and line, else its module; `None` without."""
    file = re.split(r"[/\\]", str(where.get("file") or ""))[-1]
    if file and where.get("line") and not re.search(r"\s", file):
        return f"{file}:{where['line']}"
    module = where.get("module")
    return None if module is None or re.search(r"\s", str(module)) else str(module)


# What the peak is made of


def _breakdown(rank: RankReport) -> View:
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
        rows.append(row | {"percent": _percent(num_bytes, total), "share": _share(num_bytes, total)})
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
        share = {"percent": _percent(num_bytes, total), "share": _share(num_bytes, total)}
        views.append({"key": key, "label": label, "value": format_bytes(num_bytes), **share})
    return views


def _changes(first: Peak | None, steady: Peak | None) -> View | None:
    """Return bytes by category at the first-step and the steady-state peak, and how they differ, most first."""
    if first is None or steady is None:
        return None
    before, after = first.by_category, steady.by_category
    rows = []
    names = sorted({*before, *after}, key=lambda name: (-abs(after.get(name, 0) - before.get(name, 0)), name))
    for name in names:
        ink, pair = category_ink(name), (before.get(name, 0), after.get(name, 0))
        view = {"category": name, "label": ink.label, "color": ink.color, "hatched": ink.hatched}
        rows.append(view | {"values": [format_bytes(one) for one in pair], "change": _signed(pair[1] - pair[0])})
        rows[-1]["same"] = pair[0] == pair[1]
    total = [format_bytes(first.requested_bytes), format_bytes(steady.requested_bytes)]
    if first.requested_bytes is not None and steady.requested_bytes is not None:
        total.append(_signed(steady.requested_bytes - first.requested_bytes))
    return {"rows": rows, "total": total}


def _signed(num_bytes: int) -> str:
    return f"+{format_bytes(num_bytes)}" if num_bytes > 0 else format_bytes(num_bytes) if num_bytes else "same"


def _share(part: int | None, whole: int | None) -> float:
    return round(part / whole, 6) if part and whole else 0.0


def _percent(part: int, whole: int) -> str:
    """Return a share for people: one decimal, and never 0 % for something that is there."""
    percent = 100 * part / whole if whole else 0.0
    return "< 0.1 %" if part and percent < 0.05 else f"{percent:.1f} %"


# Timeline


def _timeline_view(rank: RankReport, timeline: Timeline, arrays: Arrays) -> View:
    """Return the two figures of a timeline (wall clock, events) and what the pointer reads from the same arrays."""
    series = _series(timeline, arrays)
    axes = {"wall": Axis(series=series, by_event=False), "event": Axis(series=series, by_event=True)}
    unrecorded_ns = sum(end - start for start, end in timeline.gaps)
    span_ns = series.times_ns[-1] - series.times_ns[0]
    readings = [
        {"label": category_ink(name).label, "category": name, "color": category_ink(name).color, "array": reference}
        for name, reference in series.category_refs.items()
    ]
    return {
        # A wall-clock axis that is mostly gap shows nothing.
        "axis": "event" if unrecorded_ns * 2 > span_ns else "wall",
        "figures": {name: timeline_figure(rank, axis) for name, axis in axes.items()},
        "seconds": series.seconds_ref,
        "events": series.events_ref,
        "categories": readings,
        "allocated": series.allocated_ref,
        "reserved": series.reserved_ref,
        "lanes": {name: _lane_texts(rank, axis) for name, axis in axes.items()},
    }


def _lane_texts(rank: RankReport, axis: Axis) -> dict[str, list[list[Any]]]:
    return {
        lane: [[span["start"], span["end"], span["text"]] for span in spans]
        for lane, spans in lanes(rank, axis).items()
    }


def _series(timeline: Timeline, arrays: Arrays) -> Series:
    """Return the arrays of a timeline, with a point of nothing at the start of each gap so that lines break there."""
    times, events = timeline.time_ns.tolist(), timeline.event.tolist()
    start_ns = times[0]
    breaks = sorted((bisect_right(times, start), start) for start, _ in timeline.gaps)
    all_times = _with_breaks(times, breaks, [time for _, time in breaks])
    all_events = _with_breaks(events, breaks, [events[min(index, len(events) - 1)] for index, _ in breaks])
    empty = [_NAN] * len(breaks)
    columns = {name: timeline.by_category[name] for name in stack_order(list(timeline.by_category))}
    lines = [column for column in (timeline.allocated_bytes, timeline.reserved_bytes) if column is not None]
    return Series(
        times_ns=all_times,
        events=all_events,
        seconds_ref=arrays.add((time - start_ns) / 1e9 for time in all_times),
        events_ref=arrays.add(all_events),
        category_refs={
            name: arrays.add(_with_breaks(column.tolist(), breaks, empty)) for name, column in columns.items()
        },
        allocated_ref=_optional(timeline.allocated_bytes, breaks, arrays),
        is_rounded=timeline.allocated_bytes is not None
        and bool((timeline.allocated_bytes != timeline.requested_bytes).any()),
        reserved_ref=_optional(timeline.reserved_bytes, breaks, arrays),
        top_bytes=max(int(column.max()) for column in (timeline.requested_bytes, *lines)),
    )


def _optional(column: Any, breaks: Sequence[tuple[int, int]], arrays: Arrays) -> Reference | None:
    return None if column is None else arrays.add(_with_breaks(column.tolist(), breaks, [_NAN] * len(breaks)))


def _with_breaks(values: list[Any], breaks: Sequence[tuple[int, int]], inserted: Sequence[Any]) -> list[Any]:
    """Return values with one inserted before each index of `breaks` (ascending)."""
    if not breaks:
        return values
    joined: list[Any] = []
    start = 0
    for (index, _), value in zip(breaks, inserted, strict=True):
        joined += values[start:index]
        joined.append(value)
        start = index
    return joined + values[start:]


# Where: modules and stacks


def _modules_view(rows: Sequence[ModuleRow]) -> View:
    total, largest = sum(row.num_bytes for row in rows), max((row.num_bytes for row in rows), default=0)
    views = []
    for row in rows[:MAX_ROWS]:
        parts = [
            {
                "label": category_ink(name).label,
                "color": category_ink(name).color,
                "hatched": category_ink(name).hatched,
            }
            | {"share": _share(row.by_category[name], row.num_bytes), "value": format_bytes(row.by_category[name])}
            for name in stack_order(list(row.by_category))
        ]
        name = "outside any module" if row.module is None else row.module
        views.append(_row(row, total, largest) | {"module": name, "parts": parts})
    return {"rows": views, "left_out": max(0, len(rows) - MAX_ROWS), "figure": module_figure(rows)}


def _stacks_view(rows: Sequence[StackRow]) -> View:
    total, largest = sum(row.num_bytes for row in rows), max((row.num_bytes for row in rows), default=0)
    views = []
    for row in rows[:MAX_ROWS]:
        ink = category_ink(row.category)
        kind = {"category": ink.label, "color": ink.color, "hatched": ink.hatched}
        python = [frame for frame in row.frames if is_python(frame)]
        frames = {
            "headline": next(iter(own_frames(row.frames)), None),
            "innermost": next(iter(python or row.frames), None),
            "frames": list(row.frames),
        }
        views.append(_row(row, total, largest) | kind | frames)
    return {"rows": views, "left_out": max(0, len(rows) - MAX_ROWS)}


def _row(row: ModuleRow | StackRow, total: int, largest: int) -> View:
    """Return what both tables show of a row; its bar is as long as its share of the largest row."""
    share = {"percent": _percent(row.num_bytes, total), "share": _share(row.num_bytes, largest)}
    return {"value": format_bytes(row.num_bytes), "allocations": f"{row.num_allocations:,}", **share}


# Steps


def _steps_view(steps: Sequence[StepResult]) -> View:
    """Return one row a recorded step, and one for each stretch of steps that were not recorded."""
    phases = [name for name in PHASES if any(phase.phase == name for step in steps for phase in step.phases)]
    largest = max((_step_peak(step) or 0 for step in steps), default=0)
    rows: list[View] = []
    unrecorded: list[StepResult] = []
    for step in steps:
        if not step.recorded:
            unrecorded.append(step)
            continue
        rows += _condensed(unrecorded)
        unrecorded = []
        rows.append(_step_row(step, phases, largest))
    kind = "allocated" if any(step.peak_allocated_bytes is not None for step in steps) else "requested"
    labels = [phase_ink(name).label for name in phases]
    return {"kind": kind, "phases": labels, "rows": rows + _condensed(unrecorded), **_step_columns(steps)}


def _step_columns(steps: Sequence[StepResult]) -> View:
    """Return which optional columns have anything to show."""
    return {
        "has_reserved": any(step.max_reserved_bytes is not None for step in steps),
        "has_mallocs": any(step.num_device_mallocs is not None for step in steps),
        "has_rss": any(step.host_rss_bytes is not None for step in steps),
    }


def _step_peak(step: StepResult) -> int | None:
    return step.peak_requested_bytes if step.peak_allocated_bytes is None else step.peak_allocated_bytes


def _step_row(step: StepResult, phases: Sequence[str], largest: int) -> View:
    peak = _step_peak(step)
    ended = step.start_ns is not None and step.end_ns is not None
    return {
        "recorded": True,
        "label": "before step 1" if step.step == 0 else str(step.step),
        "skipped": step.skipped,
        "microbatches": step.num_microbatches,
        "ended": step.end_ns is not None,
        "duration": format_ns((step.end_ns or 0) - (step.start_ns or 0)) if ended else "did not end",
        "peak": format_bytes(peak),
        "share": _share(peak, largest),
        "end": format_bytes(None if step.end is None else main_bytes(step.end)),
        "reserved": format_bytes(step.max_reserved_bytes),
        "mallocs": _NOT_RECORDED if step.num_device_mallocs is None else f"{step.num_device_mallocs:,}",
        "rss": format_bytes(step.host_rss_bytes),
        "phase_peaks": [_phase_peak(step, phase) for phase in phases],
    }


def _phase_peak(step: StepResult, name: str) -> str:
    """Return the largest peak of a phase over the microbatches of a step; "–" where the step has no such phase."""
    phases = [phase for phase in step.phases if phase.phase == name]
    peaks = [
        phase.peak_requested_bytes if phase.peak_allocated_bytes is None else phase.peak_allocated_bytes
        for phase in phases
    ]
    known = [peak for peak in peaks if peak is not None]
    return format_bytes(max(known, default=None)) if phases else "–"


def _condensed(steps: Sequence[StepResult]) -> list[View]:
    if not steps:
        return []
    first, last = steps[0].step, steps[-1].step
    label = str(first) if first == last else f"{first} – {last}"
    skipped = sum(step.skipped for step in steps)
    text = "not recorded: outside the recording windows" + (f"; {skipped:,} skipped by the scaler" if skipped else "")
    return [{"recorded": False, "label": label, "text": text}]


# Facts


def _facts(rank: RankReport) -> list[list[str]]:
    """Return header facts as pairs of name and text, nested ones with joined names, in the order given."""
    facts = [["device", rank.device], ["capacity", format_bytes(rank.capacity_bytes)]]
    _flatten("", rank.facts, facts)
    return facts


def _flatten(prefix: str, value: Any, facts: list[list[str]]) -> None:
    if isinstance(value, Mapping) and " · " in prefix:
        # Deep down (options of an optimizer) one line says it all.
        texts = [
            f"{_fact_name(str(key))} {_fact_text(str(key), item)}" for key, item in value.items() if item is not None
        ]
        facts.append([_fact_name(prefix), ", ".join(texts)])
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _flatten(f"{prefix} · {key}" if prefix else str(key), item, facts)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        for index, item in enumerate(value):
            _flatten(f"{prefix} {index + 1}", item, facts)
    elif value is not None and value not in ("", [], ()):
        facts.append([_fact_name(prefix), _fact_text(prefix, value)])


def _fact_name(name: str) -> str:
    return re.sub(r"_(bytes|ns)$", "", name).replace("_", " ")


def _fact_text(name: str, value: Any) -> str:
    """Return a fact for people; the suffix of its name says whether it is bytes or ns."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and (name.endswith("_bytes") or name.startswith("bytes_")):
        return format_bytes(value)
    if isinstance(value, int) and name.endswith("_ns") and value < 10**15:
        return format_ns(value)
    if isinstance(value, Mapping):
        # The unit of a mapping is that of what is in it, as in {"by_category_bytes": {"gradient": 12}}.
        unit = "_bytes" if name.endswith("_bytes") else ""
        return ", ".join(f"{_fact_name(str(key))} {_fact_text(f'{key}{unit}', item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return (
            " ".join(str(item) for item in value)
            if name.endswith("command")
            else ", ".join(str(item) for item in value)
        )
    return str(value)
