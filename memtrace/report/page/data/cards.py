"""The top of the page of a rank: cards of its main figures, and the out-of-memory that ended it."""

from __future__ import annotations

from typing import Any

from memtrace.analysis.results.report import OomResult, Peak, RankReport
from memtrace.report.page.data.time import time_cards
from memtrace.report.page.data.values import View, main_bytes, percent, share_of, step_name
from memtrace.units import format_bytes, format_ns


def cards(rank: RankReport) -> list[View]:
    """Return the cards of a rank: its peaks, what was taken from the device, and how complete the recording is.

    Where no memory was recorded, but time, they are of time.
    """
    if rank.time is not None and main_bytes(rank.peak) is None:
        return time_cards(rank.time)
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
    meter = share_of(rank.max_reserved_bytes, rank.capacity_bytes)
    detail = f"{percent(rank.max_reserved_bytes, rank.capacity_bytes)} of {format_bytes(rank.capacity_bytes)} capacity"
    return _card("reserved", "Most reserved", value, detail, meter=meter)


def _complete_card(rank: RankReport) -> View:
    detail = f"{rank.num_events:,} events · {rank.num_allocations:,} allocations"
    if not rank.num_events:
        detail = "no history"
    left_out = 0 if rank.unrecorded is None else rank.unrecorded.num_steps
    if rank.complete and left_out:
        # Complete as far as it was asked for: what lies between the windows nobody saw.
        steps = f"{left_out:,} step{'s' if left_out > 1 else ''} not recorded"
        return _card("completeness", rank.source.capitalize(), "in windows", f"{steps} · {detail}")
    value = "complete" if rank.complete else "incomplete"
    return _card("completeness", rank.source.capitalize(), value, detail, tone="good" if rank.complete else "warn")


def _when(peak: Peak, rank: RankReport) -> str:
    """Return where in training a peak was: "step 1 · backward · blocks.3.mlp", or its time where no steps are known."""
    words = [] if peak.step is None else [step_name(peak.step)]
    words += [word for word in (peak.phase, peak.module) if word is not None]
    if peak.predicted:
        words.append("predicted")
    if not words and peak.time_ns is not None and rank.timeline is not None and len(rank.timeline.time_ns):
        words.append(f"{format_ns(peak.time_ns - int(rank.timeline.time_ns[0]))} after the first event")
    if not words:
        return "moment not recorded" if rank.num_events else "the one moment of the snapshot"
    return " · ".join(words)


def oom_view(oom: OomResult) -> View:
    """Return what is known of an out-of-memory: how much was asked for, what was free, and why it failed."""
    words = [] if oom.step is None else [step_name(oom.step)]
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
