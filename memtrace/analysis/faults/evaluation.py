"""Evaluation that holds more than a batch: a graph that no backward uses, or what it computed for all batches.

In: `Case` with phases of evaluation. Out: `Finding`s.

    batch            1    2    3    4  │
    with a graph     aaaa aaaaaaaa …   │ activations of each batch stay with the sum of the losses
    outputs kept     o    oo   ooo  …  │ OOOO  and once more where they are put together

That a batch was evaluated with gradients switched on, and no backward came of it, was seen by the recording.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.marks import modules_of
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.diagnosis.leak_places import distinct
from memtrace.analysis.faults.over_gaps import cuts_over_gaps
from memtrace.analysis.results.diagnosis import Keeper
from memtrace.analysis.results.report import Finding
from memtrace.analysis.sentences.keepers import kept_by
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes

_LEAST_BATCHES = 3
"""Batches whose outputs are there at a time: one, and the one before it, are no collection."""
_MOST_CALLS = 0.5
"""Of so many forwards of an evaluation there has to be something, where no module made it."""


def evaluation_with_graph(case: Case) -> Finding | None:
    """Return what evaluation holds for a backward that never comes."""
    rows = _made_in_evaluation(case)
    phase = case.phase_row[rows]
    details = case.history.rank.table("phases")["detail"]
    outlives = case.lifetimes.in_use_end[rows] > _ends(case)[phase]
    rows = rows[outlives & (details[phase] != NULL)]
    # An attribute that losses are added to holds them until the next evaluation.
    cuts = cuts_over_gaps(case, rows)
    new_peak = case.new_peak(*cuts)
    if new_peak is None:
        return None
    held = case.at_peak(*cuts)
    live = _held_at_peak(case, rows)
    known = case.kept
    keeper = None if known is None else known.largest(np.flatnonzero(np.isin(known.allocation, rows)))
    num_batches = len(np.unique(case.phase_row[live]))
    return Finding(
        slug="evaluation-graph",
        severity="warning",
        title=f"Evaluation keeps the graph of {num_batches} {'batch' if num_batches == 1 else 'batches'}, which no "
        f"backward uses: {format_bytes(held)} at the peak",
        evidence={"held_at_peak_bytes": held, "num_batches_at_peak": num_batches, "num_allocations": len(live)},
        change="Evaluate under torch.no_grad() (or torch.inference_mode()), and add numbers up: total += loss.item().",
        cost="None: evaluation gets faster.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=_made_or_fed_at(case, live, keeper),
    )


def _held_at_peak(case: Case, rows: IntArray) -> IntArray:
    """Return what is there at the peak; of what is behind a gap by then, what was there before it."""
    live: IntArray = rows[np.isin(rows, case.live_at_peak)]
    if len(live):
        return live
    stops = np.array([epoch.stop for epoch in case.history.moments.epochs], np.int64)
    of_row = np.searchsorted(stops, case.lifetimes.start[rows], side="right")
    open_rows: IntArray = rows[case.lifetimes.in_use_end[rows] >= stops[of_row]]
    return open_rows


def evaluation_outputs(case: Case) -> Finding | None:
    """Return what evaluation computed for batches before and still holds, and what that is put together to."""
    rows = np.union1d(_made_in_evaluation(case), _made_of_results(case))
    batch = _batch_of(case, rows)
    # What a graph keeps is kept for want of no_grad, whatever else holds it.
    is_plain = case.history.rank.table("phases")["detail"][batch] == NULL
    rows, batch = rows[is_plain], batch[is_plain]
    rows = _with_the_last(case, rows, rows[_num_later_batches(case, rows, batch) >= _LEAST_BATCHES - 1])
    if not len(rows):
        return None
    own_end = _ends(case)[_batch_of(case, rows)]
    kept = case.cut(rows, start=np.maximum(own_end + 1, case.lifetimes.start[rows]))
    joined = _joined(case, rows)
    new_peak = case.new_peak(kept, case.cut(joined))
    if new_peak is None:
        return None
    num_bytes = case.at_peak(kept)
    known = case.kept
    keeper = None if known is None else known.largest(np.flatnonzero(np.isin(known.allocation, rows)))
    fed_at = _fed_at(keeper)
    by_whom = "" if keeper is None else f", in {keeper.text}"
    return Finding(
        slug="evaluation-outputs",
        severity="warning",
        title=f"Evaluation collects on the device what each batch comes to: {format_bytes(num_bytes)}{by_whom}",
        evidence={
            "collected_at_peak_bytes": num_bytes,
            "put_together_at_peak_bytes": case.at_peak(case.cut(joined)),
            "num_allocations": len(rows),
            **kept_by(keeper),
        },
        change="Reduce each batch before it is kept (argmax, a running metric), or move it to the CPU (.cpu()); in "
        "transformers: preprocess_logits_for_metrics, or eval_accumulation_steps.",
        cost="A copy to the CPU for each batch; none where it is reduced.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=fed_at or _line_above(case, rows),
    )


def _made_or_fed_at(case: Case, rows: IntArray, keeper: Keeper | None) -> Mapping[str, object] | None:
    """Return the line that makes something; where frames were not kept, the line that feeds what keeps it."""
    made = _line_above(case, rows)
    return made if made is not None and made.get("line") is not None else _fed_at(keeper) or made


def _fed_at(keeper: Keeper | None) -> Mapping[str, object] | None:
    """Return the line that feeds what keeps something, where it is known."""
    return None if keeper is None else keeper.fed_at


def _made_in_evaluation(case: Case) -> IntArray:
    owned = case.history.attribution.owner_row != NULL
    owned &= ~case.is_category(Category.INPUT)
    found: IntArray = np.flatnonzero(case.in_phase(Phase.EVALUATION) & ~owned)
    return found


def _made_of_results(case: Case) -> IntArray:
    """Return what the program made of outputs between the forwards of an evaluation, after most of them, and has to the
    last: what is replaced on the way, as keys and values of a generation, is not collected."""
    unowned = (case.history.attribution.owner_row == NULL) & (case.phase_row < 0)
    begins = case.history.rank.table("phases")["start_ns"][_evaluations(case)]
    found = [np.zeros(0, np.int64)]
    for start_ns, end_ns in case.history.evaluations.tolist():
        own = begins[(begins >= start_ns) & (begins < end_ns)]
        inside = unowned & (case.start_ns >= start_ns) & (case.start_ns < end_ns)
        if not len(own):
            continue
        last = case.history.moments.at_time(int(own[-1]))
        rows = np.flatnonzero(inside & (case.lifetimes.in_use_end > last))
        calls = np.unique(np.searchsorted(own, case.start_ns[rows], side="right"))
        if len(calls) >= _MOST_CALLS * len(own):
            found.append(rows)
    return np.concatenate(found)


def _batch_of(case: Case, rows: IntArray) -> IntArray:
    """Return the evaluation that each allocation was made in, or after: a row of phases."""
    own, phases = case.phase_row[rows], _evaluations(case)
    before = np.searchsorted(case.history.rank.table("phases")["start_ns"][phases], case.start_ns[rows], "right") - 1
    found: IntArray = np.where(own >= 0, own, phases[np.maximum(before, 0)] if len(phases) else own)
    return found


def _evaluations(case: Case) -> IntArray:
    rank = case.history.rank
    rows = np.flatnonzero(rank.table("phases")["phase"] == rank.string_id(Phase.EVALUATION.value))
    found: IntArray = rows[np.argsort(rank.table("phases")["start_ns"][rows], kind="stable")]
    return found


def _ends(case: Case) -> IntArray:
    """Return for each phase its last moment; of one that did not end, the last of all."""
    end_ns = case.history.rank.table("phases")["end_ns"]
    return np.where(end_ns == NULL, case.history.last_moment, case.history.moments.at_times(end_ns))


def _num_later_batches(case: Case, rows: IntArray, phase: IntArray) -> IntArray:
    """Return of how many later batches there is the like of each, made at its place, while it is still there.

    A policy, a reference and a reward model that one batch goes through are no batches.
    """
    lifetimes, stack = case.lifetimes, case.lifetimes.stack[rows]
    module = np.where(stack == NULL, modules_of(case.history, rows), NULL)
    _, place = distinct(stack, module)
    number = np.zeros(len(rows), np.int64)
    for one in np.unique(place).tolist():
        own = np.flatnonzero(place == one)
        # Phases are in the order of time, and so are their first allocations.
        batches, of_own = np.unique(phase[own], return_inverse=True)
        begins = np.full(len(batches), lifetimes.num_moments, np.int64)
        np.minimum.at(begins, of_own.reshape(-1), lifetimes.start[rows[own]])
        at_end = np.searchsorted(begins, lifetimes.in_use_end[rows[own]])
        number[own] = at_end - np.searchsorted(batches, phase[own], side="right")
    return number


def _with_the_last(case: Case, rows: IntArray, collected: IntArray) -> IntArray:
    """Return what is collected with that of the last batches, which go when the others do, and are of their sizes."""
    if not len(collected):
        return collected
    lifetimes = case.lifetimes
    first, last = (int(lifetimes.in_use_end[collected].min()), int(lifetimes.in_use_end[collected].max()))
    ends = lifetimes.in_use_end[rows]
    alike = np.isin(lifetimes.size_bytes[rows], lifetimes.size_bytes[collected])
    # Those of one list are freed one after the other, the last first.
    together = (ends >= first - len(rows)) & (ends <= last + len(rows))
    found: IntArray = np.union1d(collected, rows[alike & together])
    return found


def _joined(case: Case, rows: IntArray) -> IntArray:
    """Return what has the bytes of all that is kept at the moment at which it was made: the parts put together."""
    lifetimes = case.lifetimes
    sizes, starts, ends = (column[rows] for column in (lifetimes.size_bytes, lifetimes.start, lifetimes.in_use_end))
    level = np.zeros(len(case.level) + 1, np.int64)
    np.add.at(level, starts, sizes)
    np.subtract.at(level, ends, sizes)
    kept = np.cumsum(level)
    made = ~lifetimes.is_initial & (lifetimes.size_bytes == kept[lifetimes.start]) & (lifetimes.size_bytes > 0)
    made[rows] = False
    found: IntArray = np.flatnonzero(made & (lifetimes.size_bytes > sizes.max()))
    return found


def _line_above(case: Case, rows: IntArray) -> Mapping[str, object] | None:
    """Return the line of the program under which nearly all of some allocations were made."""
    return case.line_above(rows) or place_of(case.history, rows)
