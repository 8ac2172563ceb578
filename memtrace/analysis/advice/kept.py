"""What the program keeps beyond the step that made it, by who keeps it: an exception, a closure, a cycle, a variable.

In: `Case`. Out: a `Finding` for the keeper of most bytes at the peak. What grows is a leak and told there; what is made
before training, or by the step that peaks, is not looked at. Between forwards that no backward follows, what is kept is
that of the forwards before: a graph that no backward ever sees, or a container that collects.

Keeping is no fault by itself: queues, caches, buffers of replays and states carried on are kept by design, and as large
in one step as in the next. Such a keeper is told of where it grows, or with another finding about the same bytes. What
nobody keeps on purpose is told of at any rate: a graph, the variables of a call that failed, a cycle, a context. What
each step replaces is told of where the peak without it is a good deal lower, or where it is put together anew with more
in each step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from memtrace.analysis.advice.case import BoolArray, Case, Cut
from memtrace.analysis.device.keepers import KeptAllocations
from memtrace.analysis.device.marks import step_at
from memtrace.analysis.device.steps import step_spans
from memtrace.analysis.results.diagnosis import Keeper
from memtrace.analysis.results.report import Finding, Leak
from memtrace.analysis.sentences.keepers import change_of, kept_by
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes

_LEAST_SHARE = 0.05
"""The least part of the peak that a keeper must hold there."""
_LEAST_BYTES = 1 << 16
_TELL_OF_KEPT = (
    *("evaluation-graph", "evaluation-outputs", "kept-for-steps", "one-backward"),
    *("outputs-of-step-before", "returned-gradients", "unused-graph"),
)
"""Findings that are about what is kept, too."""
_OF_ONE_STEP = "outputs-of-step-before"
_SETS = ("second-copy", "own-sets")
_ALIKE = 0.1
"""How near the growth in a step comes to the parameters' bytes where it is a set of their sizes."""
_ANEW = ("variable", "attribute")
_COLLECTING = ("graph", "container", "attribute", "closure")
_LEAST_COLLECTED = 3
_BY_ACCIDENT = ("graph", "traceback", "context", "cycle")
"""What keeps things without anybody's having put them there."""
_LEAST_SHARE_OF_REPLACED = 0.2
"""The least part of the peak that is saved by letting go of what each step replaces."""


def told_once(findings: Iterable[Finding], leaks: Iterable[Leak]) -> tuple[Finding, ...]:
    """Return findings without those about what is kept, where a leak or another finding tells of the same bytes.

    The other finding then names the keeper.
    """
    leaks = tuple(leaks)
    found = [one for one in findings if not any(_is_of_leak(one, leak) for leak in leaks)]
    kept = next((one for one in found if one.slug == "kept"), None)
    if kept is None:
        return tuple(found)
    num_bytes = kept.evidence["kept_at_peak_bytes"]
    same = [
        one
        for one in found
        if one.slug in _TELL_OF_KEPT
        and ((one.saves_bytes or 0) <= 2 * num_bytes or one.evidence.get("kept_by") == kept.evidence["kept_by"])
    ]
    is_leak = any(leak.keeper is not None and leak.keeper.text == kept.evidence["kept_by"] for leak in leaks)
    if same and not is_leak and _stands_alone(kept) and all(_is_part(one, kept) for one in same):
        return tuple(one for one in found if one not in same)
    if same or is_leak or not _stands_alone(kept):
        found.remove(kept)
    is_named = any(one.evidence.get("kept_by") == kept.evidence["kept_by"] for one in same)
    for one in same[:1]:
        if "kept_by" not in one.evidence and not is_named:
            keeper = {
                name: value for name, value in kept.evidence.items() if name in ("kept_by", "keeper_kind", "fed_at")
            }
            named = dataclasses.replace(
                one,
                title=f"{one.title}, kept by {kept.evidence['kept_by']}",
                evidence={**one.evidence, **keeper},
                where=one.where or kept.where,
            )
            found[found.index(one)] = named
    return tuple(found)


def _is_part(finding: Finding, kept: Finding) -> bool:
    """Return whether a finding is about the outputs of one step of several whose outputs are kept."""
    return finding.slug == _OF_ONE_STEP and 2 * (finding.saves_bytes or 0) <= (kept.saves_bytes or 0)


def _is_of_leak(finding: Finding, leak: Leak) -> bool:
    """Return whether sets as large as all parameters are what a leak keeps of each step: gradients, weights."""
    if finding.slug not in _SETS:
        return False
    if leak.keeper is not None and leak.keeper.text == finding.evidence.get("kept_by"):
        return True
    num_bytes = int(finding.evidence["parameter_bytes"])
    return abs(leak.bytes_per_step - num_bytes) <= _ALIKE * num_bytes


def _stands_alone(kept: Finding) -> bool:
    """Return whether what is kept is worth a word by itself, and nobody's design."""
    evidence = kept.evidence
    if evidence["grows"]:
        return True
    is_accident = evidence["keeper_kind"] in _BY_ACCIDENT or "in the traceback of" in evidence["kept_by"]
    saves, peak = kept.saves_bytes or 0, (kept.saves_bytes or 0) + (kept.new_peak_bytes or 0)
    return is_accident and (not evidence["is_replaced"] or saves >= _LEAST_SHARE_OF_REPLACED * peak)


def kept_past_its_step(case: Case) -> Finding | None:
    """Return who keeps most of what earlier steps made, or forwards that no backward follows."""
    kept = case.kept
    peak_ns = int(case.history.moments.time_ns[case.peak_moment]) if kept is not None else 0
    step = None if kept is None else step_at(case.history, peak_ns)
    if kept is None or step is None or step < 1:
        return None
    spans = step_spans(case.history)
    at_peak = np.isin(kept.allocation, case.live_at_peak)
    # What the step that peaks made itself, it may need.
    before = case.lifetimes.start[kept.allocation] <= (spans[step].first if step in spans else -1)
    old, in_row = _of_earlier_steps(case, kept), _between_forwards(case, kept)
    found = [
        (keeper, rows, is_old)
        for rows, chosen, is_old in ((old, old & at_peak & before, True), (in_row, in_row & at_peak, False))
        if (keeper := kept.largest(np.flatnonzero(chosen))) is not None
    ]
    if not found:
        return None
    keeper, rows, is_old = max(found, key=lambda one: one[0].num_bytes)
    return _finding(case, kept, keeper, np.flatnonzero(rows), is_old=is_old)


def _finding(case: Case, kept: KeptAllocations, keeper: Keeper, rows: IntArray, *, is_old: bool) -> Finding | None:
    allocations = _of_keeper(kept, keeper, rows)
    start = _kept_from(case, kept, allocations, rows, is_old=is_old)
    cut = case.cut(allocations, start=start)
    num_bytes = case.at_peak(cut)
    new_peak = case.new_peak(cut)
    if new_peak is None or num_bytes < max(_LEAST_BYTES, _LEAST_SHARE * case.peak_bytes):
        return None
    what = "of earlier steps" if is_old else "of forwards that no backward follows"
    is_replaced = is_old and _is_replaced(case, kept, keeper, cut)
    is_put_together = is_replaced and keeper.kind in _ANEW and _is_put_together(kept, keeper)
    return Finding(
        slug="kept",
        severity="warning",
        title=f"{format_bytes(num_bytes)} {what} are held at the peak by {keeper.text}",
        evidence={
            "kept_at_peak_bytes": num_bytes,
            "num_kept_at_peak": case.num_at_peak(cut),
            "is_replaced": is_replaced,
            # What holds only so many grows until it is full.
            "grows": is_put_together or (not is_replaced and keeper.kind != "bounded" and _grows(kept, keeper)),
            **kept_by(keeper),
        },
        # A tensor that has more in each step is a container by another name.
        change=change_of(
            dataclasses.replace(keeper, kind="container") if is_put_together else keeper,
            is_replaced=is_replaced and not is_put_together,
        ),
        cost="None: nothing reads what is kept, or it fits in a number.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=keeper.fed_at,
    )


def _is_replaced(case: Case, kept: KeptAllocations, keeper: Keeper, cut: Cut) -> bool:
    """Return whether most of what is kept is gone at the end of the step after that which made it.

    What was there before a stretch of the recording has outlived a step that nobody saw: it is judged where all is of
    that kind, and not where the keeper had more each time.
    """
    is_seen = ~case.lifetimes.is_initial[cut.rows]
    after = cut.end - _end_of_step(case, cut.start + 1)
    if not is_seen.any():
        return bool(np.median(after) <= 0) and not _grows(kept, keeper)
    return bool(np.median(after[is_seen]) <= 0)


def _grows(kept: KeptAllocations, keeper: Keeper) -> bool:
    """Return whether a keeper had more when it was last looked at than a step, or a forward, before."""
    # What was found at the end of a step is told again when the next begins.
    looks = _looks(kept, keeper)
    before = [held for step, held in looks if step < looks[-1][0]]
    return bool(before) and looks[-1][1] > before[-1]


def _is_put_together(kept: KeptAllocations, keeper: Keeper) -> bool:
    """Return whether a variable that is bound anew in each step has as much more each time, from one step's share on:
    `seen = torch.cat([seen, out])`."""
    held = dict(_looks(kept, keeper))
    for first, second, third in zip(held, [*held][1:], [*held][2:], strict=False):
        rates = (held[second] - held[first]) / (second - first), (held[third] - held[second]) / (third - second)
        share = min(rates)
        if share > 0 and max(rates) <= (1 + _ALIKE) * share and held[first] <= (1 + _ALIKE) * share:
            return True
    return False


def _looks(kept: KeptAllocations, keeper: Keeper) -> list[tuple[int, int]]:
    """Return step and bytes of each time that a keeper was found."""
    table, rank = kept.history.rank.table("keepers"), kept.history.rank
    same = table["keeper"] == rank.string_id(keeper.text)
    times = [table["time_ns"] == one for one in np.unique(table["time_ns"][same]).tolist()]
    return [(int(table["step"][same & one].max()), int(table["num_bytes"][same & one].max())) for one in times]


def _of_earlier_steps(case: Case, kept: KeptAllocations) -> BoolArray:
    """Return which rows name what training made and what outlived its step."""
    lifetimes, spans = case.lifetimes, step_spans(case.history)
    start = lifetimes.start[kept.allocation]
    training = min((span.first for number, span in spans.items() if number >= 1), default=len(case.history.moments))
    outlives = lifetimes.in_use_end[kept.allocation] > _end_of_step(case, start) + 1
    # Over a gap, what was there before training is told by its address and size.
    resident = np.flatnonzero(lifetimes.start <= training)
    known = set(zip(lifetimes.address[resident].tolist(), lifetimes.size_bytes[resident].tolist(), strict=True))
    rows = kept.allocation.tolist()
    addresses, sizes = lifetimes.address[rows].tolist(), lifetimes.size_bytes[rows].tolist()
    was_there = [key in known for key in zip(addresses, sizes, strict=True)]
    is_initial = lifetimes.is_initial[kept.allocation]
    return np.asarray((start > training) & (outlives | is_initial) & ~(is_initial & np.array(was_there, np.bool_)))


def _end_of_step(case: Case, moments: IntArray) -> IntArray:
    """Return the last moment of the step that each moment lies in."""
    ends = np.array(sorted(span.last for span in step_spans(case.history).values()), np.int64)
    at = np.searchsorted(ends, moments)
    return np.where(at < len(ends), ends[np.minimum(at, len(ends) - 1)], len(case.history.moments))


def _between_forwards(case: Case, kept: KeptAllocations) -> BoolArray:
    """Return which rows were made within a step, of what collects and no backward ever needed."""
    table, rank = case.history.rank.table("keepers"), case.history.rank
    steps = rank.table("steps")
    ends = {int(number): int(end) for number, end in zip(steps["step"], steps["end_ns"], strict=True)}
    end_ns = np.array([ends.get(step, NULL) for step in table["step"][kept.row].tolist()], np.int64)
    is_between = (end_ns == NULL) | (table["time_ns"][kept.row] < end_ns)
    kinds = [rank.string_id(kind) for kind in _COLLECTING]
    collects = np.isin(table["kind"][kept.row], kinds) & (table["num_storages"][kept.row] >= _LEAST_COLLECTED)
    needed = case.history.attribution.saved_row[kept.allocation] != NULL
    return np.asarray(is_between & collects & ~needed & ~kept.is_old)


def _of_keeper(kept: KeptAllocations, keeper: Keeper, rows: IntArray) -> IntArray:
    text = kept.history.rank.text
    names = kept.history.rank.table("keepers")["keeper"]
    plain = keeper.text.removeprefix("graph of ")
    chosen = [at for at in rows.tolist() if (text(int(names[kept.row[at]])) or "").removeprefix("graph of ") == plain]
    return np.unique(kept.allocation[chosen])


def _kept_from(case: Case, kept: KeptAllocations, allocations: IntArray, rows: IntArray, *, is_old: bool) -> IntArray:
    """Return from when on each allocation has served: the end of its step, or the first time it was found kept."""
    start = case.lifetimes.start[allocations]
    if is_old:
        return np.where(case.lifetimes.is_initial[allocations], start, np.maximum(_end_of_step(case, start), start))
    times = kept.history.rank.table("keepers")["time_ns"][kept.row[rows]]
    moments = case.history.moments.at_times(times)
    found = [int(moments[kept.allocation[rows] == one].min()) for one in allocations.tolist()]
    return np.maximum(np.array(found, np.int64), start)
