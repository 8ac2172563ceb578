"""Plans as text and as the JSON document of the contract (`memtrace-plan`, version 1).

In: `Plan`. Out: text, or JSON. Every number is a field.
"""

from __future__ import annotations

import orjson

from memtrace.forecast.results import Plan, PlanRow
from memtrace.report.json.plain import plain
from memtrace.report.terminal.columns import aligned
from memtrace.units import format_bytes, format_ns

FORMAT = "memtrace-plan"
VERSION = 1
HEADINGS = (
    *("", "dp", "tp", "pp", "virtual", "cp", "ep", "ZeRO", "recompute", "micro-batch", "accum."),
    *("peak", "step", "tok/s/GPU", "MFU"),
)


def plan_json(plan: Plan) -> bytes:
    """Return the document as indented UTF-8 JSON with a newline at its end."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model": plan.model,
        "num_parameters": plan.num_parameters,
        "gpus": plan.gpus,
        "gpu": plan.gpu,
        "capacity_bytes": plan.capacity_bytes,
        "global_tokens": plan.global_tokens,
        "sequence": plan.sequence,
        "num_layouts": plan.num_layouts,
        "num_fitting": plan.num_fitting,
        "rows": plain(plan.rows),
        "pareto": plain(plan.pareto),
        "assumptions": list(plan.assumptions),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def verdict(plan: Plan) -> str:
    """Return the sentence that matters most: the best layout, or that nothing fits."""
    where = f"{plan.gpus} × {plan.gpu}"
    if not plan.num_fitting:
        least = min(plan.rows, key=lambda row: row.peak_bytes)
        return f"{plan.model} fits {where} in no layout; the nearest needs {format_bytes(least.peak_bytes)} a GPU."
    best = plan.rows[0]
    return (
        f"{plan.model} on {where}: {layout_name(best)}, {format_bytes(best.peak_bytes)} a GPU, "
        f"{best.tokens_per_second_per_gpu:,.0f} tokens a second and GPU (MFU {best.mfu:.0%})."
    )


def layout_name(row: PlanRow) -> str:
    """Return a layout in words, axes of one rank left out."""
    axes = {"dp": row.dp, "tp": row.tp, "pp": row.pp, "cp": row.cp, "ep": row.ep}
    words = [f"{name} {size}" for name, size in axes.items() if size > 1]
    words += [f"{row.virtual_stages} stages a rank"] if row.virtual_stages > 1 else []
    words += [f"ZeRO-{row.zero}"] if row.zero else []
    words += [] if row.recompute == "none" else [f"{row.recompute} recomputation"]
    return ", ".join([*words, f"micro-batch {row.micro_batch} × {row.accumulation}"])


def plan_text(plan: Plan) -> str:
    """Return the plan as text for a terminal."""
    rows = [_cells(str(number), row) for number, row in enumerate(plan.rows, start=1)]
    lines = [
        verdict(plan),
        f"{plan.num_fitting:,} of {plan.num_layouts:,} layouts fit; {plan.global_tokens:,} tokens a step, sequences of "
        f"{plan.sequence:,}.",
        "",
        *aligned([HEADINGS, *rows]),
        "",
    ]
    lines += _reasons(plan)
    lines += ["", "Least memory for each throughput (nothing beats these in both):", ""]
    lines += aligned([HEADINGS, *(_cells("", row) for row in plan.pareto)]) if plan.pareto else ["  none fits"]
    if plan.rows:
        lines += ["", "What to type for layout 1:", ""]
        for name, text in plan.rows[0].settings.items():
            lines += [f"  {name}:", f"    {text}"]
    lines += ["", "Assumed:", *(f"  - {one}" for one in plan.assumptions)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _reasons(plan: Plan) -> list[str]:
    """Return a line for each layout of which there is anything to say that was not said of one above it."""
    said: set[str] = set()
    lines = []
    for number, row in enumerate(plan.rows, start=1):
        new = [one for one in row.reasons if one not in said]
        said.update(new)
        lines += [f"{number}. {' '.join(new)}"] if new else []
    return lines


def _cells(number: str, row: PlanRow) -> tuple[str, ...]:
    axes = (row.dp, row.tp, row.pp, row.virtual_stages, row.cp, row.ep, row.zero)
    return (
        number if row.verdict == "fits" else f"{number} {row.verdict}".strip(),
        *map(str, axes),
        row.recompute,
        str(row.micro_batch),
        str(row.accumulation),
        format_bytes(row.peak_bytes),
        format_ns(row.step_time_ns),
        f"{row.tokens_per_second_per_gpu:,.0f}",
        f"{row.mfu:.1%}",
    )
