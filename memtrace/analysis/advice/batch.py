"""Smaller micro-batches: half the rows in a forward pass, twice the passes in a step.

In: `Case`. Out: a `Finding`. What is made from the batch halves: inputs, activations, and what forward and backward
work with. Gradients do not; they stay from the first micro-batch to the last, and so lie beneath a forward that had
none before, and each new one lies beside the sum that it is added to.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.advice.case import BoolArray, Case, Cut
from memtrace.analysis.advice.kept_for_backward import kept_as, parameter_shapes, shapes
from memtrace.analysis.results.report import Finding
from memtrace.analysis.time.batches import inputs_of_training
from memtrace.schema.names import Category, Phase
from memtrace.schema.shapes import parse_shape
from memtrace.store.columns import NULL, IntArray

_OF_THE_BATCH = (
    Category.INPUT,
    Category.ACTIVATION,
    Category.TEMPORARY,
    Category.AUTOGRAD_DETAIL,
    Category.UNKNOWN,
)


def smaller_micro_batch(case: Case) -> Finding | None:
    """Return the advice to halve the micro-batch and accumulate gradients over twice as many."""
    largest = _largest_input(case)
    batch = None if largest is None else _first_dimension(case, largest)
    if batch is not None and (batch <= 1 or _is_the_same_each_step(case, largest)):
        return None
    # Of an odd batch the larger half is what counts.
    kept_rows, of_rows = (1, 2) if batch is None else (-(-batch // 2), batch)
    rows = np.flatnonzero(_from_the_batch(case))
    sizes = case.lifetimes.size_bytes[rows]
    cuts = [case.cut(rows, sizes - sizes * kept_rows // of_rows), *_gradients_between(case)]
    new_peak = case.new_peak(*cuts)
    if new_peak is None:
        return None
    halved = case.at_peak(cuts[0])
    live = _is_live(case, rows)
    if 2 * int(sizes[live & case.is_category(Category.UNKNOWN)[rows]].sum()) > int(sizes[live].sum()):
        # Nobody knows what most of it is for: it need not come from the batch.
        return None
    half = "half the micro-batch" if batch is None else f"a micro-batch of {kept_rows} instead of {batch}"
    return Finding(
        slug="smaller-micro-batch",
        severity="info",
        title="Half the micro-batch with twice the accumulation would need less",
        evidence={
            "micro_batch": batch,
            "grows_with_batch_at_peak_bytes": int(sizes[live].sum()),
            "gradients_kept_between_bytes": max(halved - case.at_peak(*cuts), 0),
        },
        change=f"Run {half} and step the optimizer after twice as many backward passes, each loss divided by that "
        "number.",
        cost="Twice as many, smaller kernels: the same arithmetic, some speed. Batch statistics see fewer rows.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=None,
    )


def _is_live(case: Case, rows: IntArray) -> BoolArray:
    return (case.lifetimes.start[rows] <= case.peak_moment) & (case.lifetimes.in_use_end[rows] > case.peak_moment)


def _largest_input(case: Case) -> int | None:
    """Return the row of owners of the largest input of a training forward; `None` where none was recorded."""
    inputs = inputs_of_training(case.history.rank)
    if not len(inputs):
        return None
    return int(inputs[np.argmax(case.history.rank.table("owners")["tensor_bytes"][inputs])])


def _first_dimension(case: Case, row: int) -> int | None:
    shape = parse_shape(case.history.rank.text(int(case.history.rank.table("owners")["shape"][row])))
    return shape[0] if shape else None


def _is_the_same_each_step(case: Case, row: int | None) -> bool:
    """Return whether an input is no batch: one allocation that goes into every step, as a whole graph does."""
    inputs, allocation = inputs_of_training(case.history.rank), case.history.attribution.allocation_of_owner
    if row is None or allocation[row] < 0:
        return False
    steps = case.history.rank.table("owners")["step"][inputs[allocation[inputs] == allocation[row]]]
    return len(np.unique(steps)) > 1


def _from_the_batch(case: Case) -> BoolArray:
    """Return whether each allocation grows with the batch."""
    made = case.in_phase(Phase.FORWARD, Phase.BACKWARD, Phase.RECOMPUTE) | case.is_category(Category.ACTIVATION)
    # An input is known to be one batch where it was seen going into a forward; else it may be a whole data set.
    made |= case.is_category(Category.INPUT) & (case.history.attribution.owner_row != NULL)
    made &= case.is_category(*_OF_THE_BATCH) & ~case.lifetimes.is_initial & ~_in_evaluation(case)
    # Copies of weights in the type of autocast are kept for backward as well.
    cast = np.zeros(len(made), np.bool_)
    for dtype in case.history.rank.header.get("autocast_dtypes") or []:
        cast |= kept_as(case, str(dtype))
    rows, weights = np.flatnonzero(made & cast), _weight_shapes(case)
    made[[row for row, shape in zip(rows.tolist(), shapes(case, rows), strict=True) if shape in weights]] = False
    return made


def _in_evaluation(case: Case) -> BoolArray:
    """Return whether each allocation was made while the program evaluated, whose batch is another one."""
    starts, ends = case.history.evaluations.T
    at = np.searchsorted(starts, case.start_ns, side="right") - 1
    # Before the first stretch reads the entry at the end.
    return (at >= 0) & (case.start_ns < np.append(ends, NULL)[at])


def _weight_shapes(case: Case) -> set[tuple[int, ...] | None]:
    """Return the shapes of the parameters, and what they are transposed."""
    matrices = parameter_shapes(case)
    return {*matrices, *(shape[::-1] for shape in matrices)}


def _gradients_between(case: Case) -> list[Cut]:
    """Return the gradients of each step as bytes that are there from its first forward until each is made again."""
    rank, phases = case.history.rank, case.history.rank.table("phases")
    made = np.flatnonzero(case.is_category(Category.GRADIENT) & case.in_phase(Phase.BACKWARD))
    of_forward = np.flatnonzero(phases["phase"] == rank.string_id(Phase.FORWARD.value))
    if not len(made) or not len(of_forward):
        return []
    made = made[np.argsort(case.lifetimes.start[made], kind="stable")]
    # Forwards are in the order of time, so the first row of a step is its first forward.
    steps, first = np.unique(phases["step"][of_forward], return_index=True)
    step = phases["step"][case.phase_row[made]]
    position = np.minimum(np.searchsorted(steps, step), len(steps) - 1)
    begins = case.history.moments.at_times(phases["start_ns"][of_forward[first[position]]]) + 1
    starts = case.lifetimes.start[made]
    # The new part of a gradient is added to the sum, and freed, before the next gradient is made.
    ends = np.append(starts[1:], starts[-1] + 1)
    ends = np.where(np.append(step[1:], step[-1]) == step, ends, starts + 1)
    valid = (steps[position] == step) & (begins < ends)
    return [Cut(start=begins[valid], end=ends[valid], size_bytes=-case.lifetimes.size_bytes[made[valid]])]
