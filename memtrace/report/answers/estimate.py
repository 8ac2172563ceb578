"""Estimates as text and as the JSON document of the contract (`memtrace-estimate`, version 1).

In: `Estimate`, and a `Comparison` where a recording stands beside it. Out: text, or JSON. Every number is a field.
"""

from __future__ import annotations

from typing import Any

import orjson

from memtrace.forecast.results import Comparison, Estimate
from memtrace.report.drawing.palette import category_ink, stack_order
from memtrace.report.json.plain import plain
from memtrace.report.terminal.columns import aligned
from memtrace.units import format_bytes

FORMAT = "memtrace-estimate"
VERSION = 1


def estimate_json(estimate: Estimate, comparison: Comparison | None = None) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "model": estimate.model,
        "num_parameters": estimate.num_parameters,
        "num_active_parameters": estimate.active_parameters,
        "world_size": estimate.world_size,
        "settings": dict(estimate.settings),
        "per_gpu": {
            "by_category": dict(estimate.peak.by_category),
            "total_bytes": estimate.peak.peak_bytes,
            "low_bytes": estimate.low_bytes,
            "high_bytes": estimate.high_bytes,
            "reserved_bytes": estimate.reserved_bytes,
            "gradient_bytes": estimate.gradient_bytes,
            "optimizer_state_bytes": estimate.state_bytes,
        },
        "phases": plain(estimate.phases),
        "layer_activations": dict(estimate.layer_terms),
        "capacity_bytes": estimate.capacity_bytes,
        "fits": estimate.fits,
        "assumptions": list(estimate.assumptions),
    }
    if comparison is not None:
        document["against"] = _against(comparison)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _against(comparison: Comparison) -> dict[str, Any]:
    rows = [
        {
            "category": row.name,
            "estimated_bytes": row.estimated_bytes,
            "recorded_bytes": row.recorded_bytes,
            "error_pct": row.error_pct,
        }
        for row in comparison.rows
    ]
    return {"title": comparison.title, "step": comparison.step, "rows": rows, "notes": list(comparison.notes)}


def verdict(estimate: Estimate) -> str:
    """Return the sentence that matters most: how much, and whether it fits."""
    between = f"{format_bytes(estimate.low_bytes)} to {format_bytes(estimate.high_bytes)}"
    gpu = "a GPU" if estimate.world_size > 1 else "the GPU"
    needs = f"{estimate.model} needs {format_bytes(estimate.peak.peak_bytes)} on {gpu} ({between})"
    if estimate.capacity_bytes is None:
        return f"{needs}."
    capacity = format_bytes(estimate.capacity_bytes)
    if estimate.fits is None:
        return f"{needs}: too close to {capacity} to tell whether it fits."
    return f"{needs}: it {'fits' if estimate.fits else 'does not fit'} in {capacity}."


def estimate_text(estimate: Estimate, comparison: Comparison | None = None) -> str:
    """Return the estimate as text for a terminal."""
    names = stack_order(sorted({name for one in estimate.phases for name in one.by_category}))
    heads = ["", "peak", *(category_ink(name).label for name in names)]
    rows = [
        [
            f"{one.step} step, {one.phase}" if one.step == "first" else f"steady state, {one.phase}",
            format_bytes(one.peak_bytes),
            *(format_bytes(one.by_category.get(name, 0)) for name in names),
        ]
        for one in estimate.phases
    ]
    lines = [verdict(estimate), f"{_parameters(estimate)}, {_settings(estimate)}", "", *aligned([heads, *rows]), ""]
    lines += [f"At the peak the program is {estimate.peak.where}.{_reserved(estimate)}", ""]
    if comparison is not None:
        lines += [*_comparison_text(comparison), ""]
    lines += ["Assumed:", *(f"  - {one}" for one in estimate.assumptions)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _reserved(estimate: Estimate) -> str:
    if estimate.reserved_bytes is None:
        return ""
    return f" With what the allocator reserves beyond it: {format_bytes(estimate.reserved_bytes)}."


def _parameters(estimate: Estimate) -> str:
    text = f"{estimate.num_parameters:,} parameters"
    if estimate.active_parameters != estimate.num_parameters:
        text += f" ({estimate.active_parameters:,} active)"
    return text


def _settings(estimate: Estimate) -> str:
    """Return how training is set, without axes of one rank."""
    alone = ("dp", "tp", "pp", "cp", "ep")
    shown = {name: value for name, value in estimate.settings.items() if not (name in alone and value == 1)}
    shown.pop("sequence_parallel", None)
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in shown.items())


def _comparison_text(comparison: Comparison) -> list[str]:
    heads = ["", "estimated", "recorded", "error"]
    rows = [
        [
            category_ink(row.name).label if row.name != "total" else "total",
            format_bytes(row.estimated_bytes),
            format_bytes(row.recorded_bytes),
            "" if row.error_pct is None else f"{row.error_pct:+.2f} %",
        ]
        for row in comparison.rows
    ]
    step = "" if comparison.step is None else f", peak in step {comparison.step}"
    return [f"{comparison.title}{step}:", "", *aligned([heads, *rows]), *(f"  {note}" for note in comparison.notes)]
