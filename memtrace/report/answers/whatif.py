"""What-if results as text and as the JSON document of the contract (`memtrace-whatif`, version 1).

In: `WhatIf`s, one a rank and device. Out: aligned text, or JSON. Every number is a field of a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from memtrace.allocator.results import Fidelity, SimulatedOom, WhatIf, WhatIfRow
from memtrace.report.json.plain import plain
from memtrace.report.terminal.columns import aligned
from memtrace.units import format_bytes

FORMAT = "memtrace-whatif"
VERSION = 1
MODEL_NOTE = "All rows but the recording itself are a model: addresses of new segments are invented."

_HEADINGS = ("", "peak allocated", "peak reserved", "wasted", "segments made", "retries", "fits")


def whatif_json(results: Sequence[WhatIf]) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    document = {"format": FORMAT, "version": VERSION, "ranks": [_rank(one) for one in results]}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _rank(result: WhatIf) -> dict[str, Any]:
    return {
        "rank": result.rank,
        "device": result.device,
        "fidelity": plain(result.fidelity),
        "rows": [_row(row) for row in result.rows],
        "advice": result.advice,
    }


def _row(row: WhatIfRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "peak_allocated_bytes": row.peak_allocated_bytes,
        "max_reserved_bytes": row.max_reserved_bytes,
        "peak_requested_bytes": row.peak_requested_bytes,
        "wasted_bytes": row.wasted_bytes,
        "num_device_mallocs": row.num_device_mallocs,
        "num_alloc_retries": row.num_alloc_retries,
        "fits": row.fits,
        "capacity_bytes": row.capacity_bytes,
        "oom": None if row.oom is None else _oom(row.oom),
        "is_model": row.is_model,
    }


def _oom(oom: SimulatedOom) -> dict[str, Any]:
    return {
        # Before the history there is no event: what was in use at its start does not fit already.
        "event": None if oom.event < 0 else oom.event,
        "request_bytes": oom.request_bytes,
        "segment_bytes": oom.segment_bytes,
        "reserved_bytes": oom.reserved_bytes,
        "allocated_bytes": oom.allocated_bytes,
        "num_alloc_retries": oom.num_alloc_retries,
    }


def whatif_text(results: Sequence[WhatIf]) -> str:
    """Return the results as text for a terminal, a table a device."""
    return "\n".join(_device_text(one) for one in results)


def _device_text(result: WhatIf) -> str:
    rank = "" if result.rank is None else f"rank {result.rank}, "
    lines = [f"{rank}{result.device}: {proof_text(result.fidelity)}"]
    if result.fidelity.first_divergence is not None:
        lines.append(f"  first divergence: {result.fidelity.first_divergence}")
    lines += ["", *aligned([_HEADINGS, *(_cells(row) for row in result.rows)]), ""]
    lines += [f"{row.name}: {failure_text(row.oom)}" for row in result.rows if row.oom is not None]
    if any(row.is_model for row in result.rows):
        lines.append(MODEL_NOTE)
    if result.advice is not None:
        lines.append(result.advice)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def proof_text(fidelity: Fidelity) -> str:
    """Return in a sentence how far the model reproduced the recording."""
    if not fidelity.replayable:
        return fidelity.reason or "The recording cannot be replayed."
    text = (
        f"the model reproduces {fidelity.allocations_matched} of {fidelity.allocations} recorded addresses and "
        f"{fidelity.segment_events_matched} of {fidelity.segment_events} segment events"
    )
    inferred = fidelity.num_inferred_blocks
    text += f"; the size of {inferred} earlier blocks was inferred." if inferred else "."
    return f"{text} {fidelity.reason}" if fidelity.reason else text


def _cells(row: WhatIfRow) -> tuple[str, ...]:
    return (
        row.name,
        format_bytes(row.peak_allocated_bytes),
        format_bytes(row.max_reserved_bytes),
        format_bytes(row.wasted_bytes),
        str(row.num_device_mallocs),
        str(row.num_alloc_retries),
        "yes" if row.fits else "no",
    )


def failure_text(oom: SimulatedOom) -> str:
    """Return in a sentence which request failed."""
    when = "before the history began" if oom.event < 0 else f"at event {oom.event}"
    return (
        f"out of memory {when}, after {_retries(oom.num_alloc_retries)}: {format_bytes(oom.request_bytes)} was asked "
        f"for, {format_bytes(oom.allocated_bytes)} in use, {format_bytes(oom.reserved_bytes)} reserved."
    )


def _retries(number: int) -> str:
    return f"{number} retry" if number == 1 else f"{number} retries"
