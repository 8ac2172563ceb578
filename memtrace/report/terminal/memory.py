"""How much memory there was, in a terminal: peaks, what they are made of, the first step and those after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memtrace.analysis.results.report import (
    ActivationPart,
    ActivationSplit,
    FirstStepEffect,
    Peak,
    PredictedPeak,
    RankReport,
    State,
)
from memtrace.printable import clean
from memtrace.report.terminal.cells import (
    DASH,
    bar,
    calm_table,
    category_name,
    filled_table,
    pairs,
    percent,
    signed_size,
    size,
)
from memtrace.schema.names import Category, Decision
from memtrace.units import format_bytes

MAX_OPERATORS = 5
_EXACT = (Decision.OWNER.value, Decision.HOOK.value)
_ROLES = {"saved": "kept for backward", "output": "outputs: logits, loss", "recomputed": "computed again"}


def figures(rank: RankReport) -> Table:
    """Return peak, first step, steady state and end, each with requested, allocated, reserved and device."""
    peaks = (
        ("peak", rank.peak),
        ("peak of step 1", rank.first_step_peak),
        ("steady-state peak", rank.steady_state_peak),
        ("peak of training", None if rank.evaluation is None else rank.evaluation.training_peak),
        ("peak of evaluation", None if rank.evaluation is None else rank.evaluation.peak),
    )
    rows = [
        ("steady state, predicted" if peak.predicted else name, *_state_cells(peak), _when(peak))
        for name, peak in peaks
        if peak is not None
    ]
    last = next((step.end for step in reversed(rank.steps) if step.end is not None), None)
    if last is not None:
        rows.append(("end of last step", *_state_cells(last), ""))
    rows.append(("end", *_state_cells(rank.end), ""))
    if rank.max_reserved_bytes is not None:
        rows.append(("largest reserved", "", "", size(rank.max_reserved_bytes), "", ""))
    if rank.capacity_bytes is not None:
        rows.append(("memory of the device", "", "", "", size(rank.capacity_bytes), ""))
    table = filled_table(("", "requested", "allocated", "reserved", "device"), rows, wide="when")
    table.rows[0].style = "bold"
    return table


def _state_cells(state: State) -> tuple[str, str, str, str]:
    return (
        size(state.requested_bytes),
        size(state.allocated_bytes),
        size(state.reserved_bytes),
        size(state.device_used_bytes),
    )


def _when(peak: Peak) -> str:
    step = None if peak.step is None else "before training" if peak.step == 0 else f"step {peak.step}"
    return clean(", ".join(part for part in (step, peak.phase, peak.module) if part)) or DASH


def peak_bytes(peak: Peak | None) -> str:
    """Return how high a peak is: allocated bytes, requested bytes where those are not known."""
    if peak is None:
        return DASH
    return size(peak.requested_bytes if peak.allocated_bytes is None else peak.allocated_bytes)


def prediction(peak: PredictedPeak) -> Text:
    """Return range, capacity and assumptions of a predicted peak."""
    lines = [f"The peak will be between {size(peak.low_bytes)} and {size(peak.high_bytes)}."]
    if peak.capacity_bytes is not None:
        answer = {True: "it fits", False: "it does not fit", None: "whether it fits is within the doubt"}[peak.fits]
        lines.append(f"It needs {size(peak.needed_bytes)} of {size(peak.capacity_bytes)}: {answer}.")
    lines += [f"Assumed: {clean(one)}" for one in peak.assumptions]
    return Text("\n".join(lines))


def categories(peak: Peak) -> RenderableType:
    """Return bytes by category, exact and inferred ones apart; the unattributed ones last."""
    total, exact = peak.requested_bytes or 0, peak.exact_by_category
    table = calm_table("", "bytes", *(("exact", "inferred") if exact else ()), "share", wide="")
    for name, num_bytes in sorted(peak.by_category.items(), key=lambda item: -item[1]):
        if num_bytes and name != Category.UNKNOWN.value:
            table.add_row(*_category_cells(peak, name, total))
    table.add_section()
    table.add_row(*_category_cells(peak, Category.UNKNOWN.value, total))
    return Group(table, Text(_decided(peak.by_decision), style="dim"))


def _category_cells(peak: Peak, name: str, total: int) -> list[str | Text]:
    num_bytes, exact = peak.by_category.get(name, 0), peak.exact_by_category.get(name, 0)
    share = num_bytes / total if total else 0.0
    parts: list[str | Text] = []
    if peak.exact_by_category:
        is_unknown = name == Category.UNKNOWN.value
        parts = [_or_nothing(exact), "" if is_unknown else _or_nothing(num_bytes - exact)]
    return [category_name(name), size(num_bytes), *parts, percent(share), bar(share, name)]


def _or_nothing(num_bytes: int) -> str:
    return size(num_bytes) if num_bytes else ""


def _decided(by_decision: Mapping[str, int]) -> str:
    """Return one line that tells what is known from what was inferred and what nobody knows."""
    exact = sum(num_bytes for name, num_bytes in by_decision.items() if name in _EXACT)
    unknown = by_decision.get(Decision.UNKNOWN.value, 0)
    inferred = sum(by_decision.values()) - exact - unknown
    return f"exact {format_bytes(exact)}, inferred {format_bytes(inferred)}, unattributed {format_bytes(unknown)}"


def first_and_later(first: Peak, steady: Peak, difference: Mapping[str, int]) -> Table:
    """Return the peaks of step one and of those after it by category, where they differ."""
    table = calm_table("", "step 1", "after it", "difference")
    for name, num_bytes in sorted(difference.items(), key=lambda item: -abs(item[1])):
        if num_bytes:
            cells = (size(peak.by_category.get(name, 0)) for peak in (first, steady))
            table.add_row(category_name(name), *cells, signed_size(num_bytes))
    table.add_section()
    table.add_row(
        "all", size(first.requested_bytes), size(steady.requested_bytes), signed_size(sum(difference.values()))
    )
    return table


def effects(found: Sequence[FirstStepEffect]) -> Table:
    """Return what makes the first step different."""
    table = calm_table("bytes", "later steps", wide="what")
    table.columns[0].justify = "right"
    for effect in found:
        later = {True: "the same", False: "not", None: DASH}[effect.stays]
        title = Text(clean(effect.title)).append(f"  {clean(effect.slug)}", style="dim")
        table.add_row(size(effect.num_bytes), later, title)
    return table


def activations(split: ActivationSplit) -> Group:
    """Return the activations by what they are, by the operators that keep them, and by micro-batch."""
    roles = [(_ROLES.get(part.name or "", "not known which"), _part(part)) for part in split.by_role]
    operators = [(_operator(part.name), _part(part)) for part in split.by_op[:MAX_OPERATORS]]
    rest = sum(part.num_bytes for part in split.by_op[MAX_OPERATORS:])
    if rest:
        operators.append((f"{len(split.by_op) - MAX_OPERATORS} more", size(rest)))
    parts: list[RenderableType] = [_named("by role", roles), _named("kept by", operators)]
    if len(split.by_microbatch) > 1:
        batches = [
            ("none known" if part.name is None else f"micro-batch {part.name}", _part(part))
            for part in split.by_microbatch
        ]
        parts.append(_named("by micro-batch", batches))
    return Group(*parts)


def _named(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """Return a heading and, beside it, names with what they stand for, in one line if that fits."""
    line = Text()
    for name, value in rows:
        line.append(", " if line.plain else "").append(clean(name)).append(f"\N{NO-BREAK SPACE}{value}", style="bold")
    return pairs([(title, line)])


def _part(part: ActivationPart) -> str:
    return size(part.num_bytes).replace(" ", "\N{NO-BREAK SPACE}")


def _operator(name: str | None) -> str:
    """Return the class of a node of the graph as the operator that it is the backward of."""
    return "no operator seen" if name is None else name.rstrip("0123456789").removesuffix("Backward")
