"""The results as Markdown: what a GPU showed, or what could be shown without one."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.predictions.outcomes import (
    MEASURES,
    Outcome,
    category_errors,
    differences,
    error_pct,
    summary,
    verdicts,
)
from memtrace.units import format_bytes

NODES_SHOWN = 4
TARGETS = {"allocated": (1.0, 5.0), "reserved": (2.0, 8.0)}
"""Median and worst error in percent that a prediction is to keep."""
ON_GPU = """Each configuration was predicted, recorded on that GPU, and compared: peaks of torch's own counters, in the
first step and in those after it; categories at the peak as the recording has them. Errors are signed, a minus is an
under-estimate. Runs with little memory were given 90, 97, 103 and 110 % of what the prediction reserves."""
UNMEASURED = """No GPU was there. Not measured, and so not known:

- peak allocated and peak reserved against a GPU, in the first step and after it, per category
- out-of-memory verdicts against runs with little memory
- context and loaded kernels against the 1 GiB that is assumed

`make gpu` or `python benchmarks/accuracy_gpu.py` on a machine with a GPU measures them."""
ON_CPU = """What could be compared without one: each configuration in small (a batch of 3, 2 layers), predicted for CUDA
and recorded in a real run on the CPU. *Owned* are parameters, buffers, gradients and optimizer states, by name, at the
end of the last step; *saved* is what autograd keeps for its backward. Where the CPU runs other kernels than CUDA, by
design, the saved tensors differ: which attention kernel, its sums of exponentials, the order of dimensions in which it
leaves its output (which decides whether a copy follows), dropout masks of one byte an element, statistics of norms in
float32, and another list of operators that autocast runs in float32. Those rows show by how much and in which nodes of
the graph; they say nothing about whether CUDA's side of it is right."""


def gpu_document(head: Sequence[str], outcomes: Sequence[Outcome], beside_bytes: int | None, assumed: int) -> str:
    """Return the page of a run on a GPU."""
    beside = "not measured" if beside_bytes is None else format_bytes(beside_bytes)
    lines = [*head, ON_GPU, "", *_summaries(outcomes), ""]
    lines += [f"Beside torch (context, loaded kernels): {beside}; assumed are {format_bytes(assumed)}.", ""]
    lines += [*_verdicts(outcomes), "", *_gpu_rows(outcomes), "", *_categories(outcomes), "", *_failures(outcomes)]
    return "\n".join(lines).rstrip() + "\n"


def _summaries(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "| | compared | median error | target | worst | target | in | under-estimates |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, measure in MEASURES.items():
        found, (median, worst) = summary(outcomes, measure), TARGETS[name.partition(",")[0]]
        if found is None:
            yield f"| {name} | 0 | – | {median:g} % | – | {worst:g} % | – | – |"
            continue
        cells = [name, str(found.num_compared), f"{found.median_pct:.2f} %", f"{median:g} %"]
        cells += [f"{found.worst_pct:+.2f} %", f"{worst:g} %", found.worst, str(found.num_under)]
        yield f"| {' | '.join(cells)} |"


def _verdicts(outcomes: Sequence[Outcome]) -> Iterator[str]:
    count, missed, alarms = verdicts(outcomes)
    yield f"Runs with little memory: {count}. Ran out of it unforeseen: {len(missed)}. False alarms: {len(alarms)}."
    for what, names in (("unforeseen", missed), ("false alarm", alarms)):
        yield from (f"- {what}: {name}" for name in names)


def _gpu_rows(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "| configuration | allocated | predicted | error | step 1 | reserved | predicted | error | step 1 |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in outcomes:
        if one.predicted is None or one.real is None:
            continue
        errors = [_percent(error_pct(one, measure)) for measure in MEASURES.values()]
        real, guess = one.real.steady, one.predicted.steady
        cells = [one.case.name, format_bytes(real.allocated_bytes), format_bytes(guess.allocated_bytes), *errors[:2]]
        cells += [format_bytes(real.reserved_bytes), format_bytes(guess.reserved_bytes), *errors[2:]]
        yield f"| {' | '.join(cells)} |"


def _categories(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "At the steady-state peak, by category:"
    yield ""
    yield "| category | median error | worst | in |"
    yield "|---|---|---|---|"
    for name, errors in category_errors(outcomes, lambda one: one.steady).items():
        worst, where = max(errors, key=lambda one: abs(one[0]))
        median = statistics.median(abs(size) for size, _ in errors)
        yield f"| {name} | {format_bytes(int(median))} | {worst:+,} bytes | {where} |"


def cpu_document(head: Sequence[str], outcomes: Sequence[Outcome]) -> str:
    """Return the page of a run without a GPU."""
    compared = [one for one in outcomes if one.predicted is not None and one.real is not None]
    owned = sum(not _owned(one) for one in compared)
    same = [one for one in compared if not one.case.has_kernels_of_cuda]
    equal = sum(not _saved(one) for one in same)
    lines = [
        *head,
        UNMEASURED,
        "",
        ON_CPU,
        "",
        f"- predicted in full: {sum(one.full is not None for one in outcomes)} of {len(outcomes)} configurations",
        f"- owned, equal to the byte: {owned} of {len(compared)}",
        f"- saved, equal to the byte where the CPU runs the same kernels: {equal} of {len(same)}",
        "",
        "| configuration | peak, steady | step 1 | reserved | owned, off by | saved in small | on the CPU | error "
        "| nodes that differ, in bytes |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_cpu_row, outcomes),
        "",
        *_failures(outcomes),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _cpu_row(one: Outcome) -> str:
    cells = [one.case.name, *["–"] * 8]
    if one.full is not None:
        full = one.full
        cells[1:4] = map(
            format_bytes, (full.steady.allocated_bytes, full.first.allocated_bytes, full.steady.reserved_bytes)
        )
    if one.predicted is not None and one.real is not None:
        saved = [sum(side.saved.values()) for side in (one.predicted, one.real)]
        error = (saved[0] - saved[1]) / saved[1] * 100 if saved[1] else 0.0
        cells[4:] = [
            _named(_owned(one)) or "0",
            f"{saved[0]:,}",
            f"{saved[1]:,}",
            f"{error:+.2f} %",
            _named(_saved(one)),
        ]
    return f"| {' | '.join(cells)} |"


def _owned(one: Outcome) -> Mapping[str, int]:
    assert one.predicted is not None
    assert one.real is not None
    return differences(one.predicted.owned, one.real.owned)


def _saved(one: Outcome) -> Mapping[str, int]:
    assert one.predicted is not None
    assert one.real is not None
    return differences(one.predicted.saved, one.real.saved)


def _named(found: Mapping[str, int]) -> str:
    shown = [f"{name.removesuffix('Backward0')} {size:+,}" for name, size in list(found.items())[:NODES_SHOWN]]
    return ", ".join([*shown, *([f"{len(found) - NODES_SHOWN} more"] if len(found) > NODES_SHOWN else [])])


def _failures(outcomes: Sequence[Outcome]) -> Iterator[str]:
    failed = [one for one in outcomes if one.failure is not None]
    if failed:
        yield "Not compared:"
        yield ""
        yield from (f"- {one.case.name}: {one.failure}".replace("|", "\\|") for one in failed)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f} %"
