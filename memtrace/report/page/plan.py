"""A plan as one HTML file that needs nothing else: tables that stand without a script, and a chart that one draws.

In: `Plan`. Out: the text of the page. The chart's data are columns in an element of their own, with nothing in them
that could end it.
"""

from __future__ import annotations

import json

from memtrace.forecast.results import Plan, PlanRow
from memtrace.report.answers.plan import HEADINGS, layout_name, verdict
from memtrace.report.page.assets import viewer_text
from memtrace.report.page.parts import page, section, text
from memtrace.units import format_bytes, format_ns

FILTERS = ("tp", "pp", "cp", "ep", "zero", "recompute")
_VIEW = "0 0 1100 460"


def render_plan(plan: Plan) -> str:
    """Return the page of a plan, complete in itself."""
    return page(
        kind="plan",
        title=plan.model,
        verdict=verdict(plan),
        footer="arithmetic, not a measurement",
        style=viewer_text("plan.css"),
        sections=[_chart(), _best(plan), _frontier(plan), _typed(plan), _assumed(plan)],
        script="plan",
        data=_payload(plan),
    )


def _payload(plan: Plan) -> str:
    """Return the data of the chart as JSON that cannot end its element."""
    payload = {
        "capacity_bytes": plan.capacity_bytes,
        "columns": {name: list(column) for name, column in plan.cloud.columns.items()},
        "frontier": [[row.peak_bytes, row.tokens_per_second_per_gpu] for row in plan.pareto],
    }
    return json.dumps(payload, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _chart() -> str:
    names = {"zero": "ZeRO"}
    filters = "".join(
        f'<label>{names.get(name, name)} <select id="filter-{name}"><option value="">all</option></select></label>'
        for name in FILTERS
    )
    body = (
        f'<div class="filters">{filters}<span class="count" id="count"></span></div>'
        f'<div class="scroll"><svg id="chart" viewBox="{_VIEW}" role="img" '
        'aria-label="Layouts by memory and throughput"></svg></div>'
        '<div class="scale"><span>utilisation (MFU) 0 %</span><svg id="ramp" viewBox="0 0 160 10"></svg>'
        '<span id="ramp-end"></span>'
        "<span>· larger is faster · dashed: capacity · line: nothing beats these</span></div>"
        '<p class="told" id="told" aria-live="polite">Point at a circle.</p>'
        "<noscript><p>The chart is drawn by the script in this file; the tables below stand without it.</p></noscript>"
    )
    return section("layouts", "Layouts by memory and throughput", body)


def _best(plan: Plan) -> str:
    summary = (
        f"{plan.num_fitting:,} of {plan.num_layouts:,} layouts fit {format_bytes(plan.capacity_bytes)}; "
        f"{plan.global_tokens:,} tokens a step, sequences of {plan.sequence:,}."
    )
    body = "".join(_row(number, row) for number, row in enumerate(plan.rows, start=1))
    return section("best", "The best", f'<p class="muted">{text(summary)}</p>{_table(body)}')


def _frontier(plan: Plan) -> str:
    body = "".join(_row(None, row) for row in plan.pareto)
    shown = _table(body) if body else '<p class="muted">No layout fits.</p>'
    return section("frontier", "Least memory for each throughput", shown)


def _row(number: int | None, row: PlanRow) -> str:
    numbers = (row.dp, row.tp, row.pp, row.virtual_stages, row.cp, row.ep, row.zero)
    cells = ["" if number is None else str(number), *map(str, numbers), row.recompute]
    cells += [str(row.micro_batch), str(row.accumulation), format_bytes(row.peak_bytes), format_ns(row.step_time_ns)]
    cells += [f"{row.tokens_per_second_per_gpu:,.0f}", f"{row.mfu:.1%}"]
    classes = "" if row.fits else " over"
    marks = "".join(f'<td class="number">{text(cell)}</td>' for cell in cells)
    if number is None:
        return f'<tr class="{classes.strip()}">{marks}</tr>'
    why = f'<td class="why" colspan="{len(cells) - 1}">{text(" ".join(row.reasons))}</td>'
    return f'<tr class="row{classes}">{marks}</tr><tr class="reasons"><td></td>{why}</tr>'


def _table(body: str) -> str:
    heads = "".join(f'<th scope="col" class="number">{text(head)}</th>' for head in HEADINGS)
    head = f"<thead><tr>{heads}</tr></thead>"
    return f'<div class="scroll"><table class="layouts">{head}<tbody>{body}</tbody></table></div>'


def _typed(plan: Plan) -> str:
    if not plan.rows:
        return ""
    best = plan.rows[0]
    blocks = "".join(
        f'<p><strong>{text(name)}</strong></p><pre class="typed mono">{text(setting)}</pre>'
        for name, setting in best.settings.items()
    )
    return section("typed", f"What to type for {layout_name(best)}", blocks)


def _assumed(plan: Plan) -> str:
    items = "".join(f"<li>{text(one)}</li>" for one in plan.assumptions)
    return section("assumed", "Assumed", f'<ul class="assumed">{items}</ul>')
