"""What a remedy promises, checked by replaying its requests in the model of the allocator, where the trace allows.

In: a `Case` and its findings. Out: the findings, each with the peak that the model of the allocator finds.

A cut takes the bytes asked for off the level of whole blocks, and does not know where what remains would lie. The model
does: it gets the requests that the remedy leaves. On the CPU nothing lies between requests and levels, and the cut is
the answer. Where a history cannot be followed exactly, has a gap, or is too long, the cut stays, and the evidence says
`is_replayed: false`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from memtrace.allocator.replay import Prepared
from memtrace.allocator.results import WhatIfRow
from memtrace.allocator.whatif import Change, Recording, replayed_recording, what_if
from memtrace.analysis.advice.allocator import MAX_REPLAYED_EVENTS
from memtrace.analysis.advice.case import WORTH_SAYING_SHARE, Case, Cut
from memtrace.analysis.advice.edited_requests import edited_requests
from memtrace.analysis.results.report import Finding


def checked(case: Case, findings: Iterable[Finding], *, keeps_small: bool = False) -> tuple[Finding, ...]:
    """Return the findings with replayed peaks, without those that by the replay would save too little; with
    `keeps_small` all of them."""
    found = list(findings)
    if case.history.is_cpu or not any(one.new_peak_bytes in case.cuts_of for one in found):
        return tuple(found)
    recording = _recording(case)
    least = 0 if keeps_small else WORTH_SAYING_SHARE * case.peak_bytes
    replayed = [_checked(case, recording, one) for one in found]
    # What was not replayed stays as well.
    return tuple(one for one in replayed if not one.evidence.get("is_replayed") or (one.saves_bytes or 0) >= least)


def _checked(case: Case, recording: Recording | None, finding: Finding) -> Finding:
    cuts = case.cuts_of.get(-1 if finding.new_peak_bytes is None else finding.new_peak_bytes)
    if cuts is None:
        return finding
    row = None if recording is None else replayed_row(case, recording, cuts, finding.slug)
    if row is None:
        return dataclasses.replace(finding, evidence={**finding.evidence, "is_replayed": False})
    # In other places than those recorded, a request may have a larger block.
    saves_bytes = max(case.peak_bytes - row.peak_allocated_bytes, 0)
    evidence = {"is_replayed": True, "replayed_reserved_bytes": row.max_reserved_bytes}
    return dataclasses.replace(
        finding,
        saves_bytes=saves_bytes,
        new_peak_bytes=case.peak_bytes - saves_bytes,
        evidence={**finding.evidence, **evidence},
    )


def _recording(case: Case) -> Recording | None:
    """Return the recording of a device that the model follows from its first event to its last."""
    replayed = case.history.replayed
    if replayed is None or replayed.allocated is None or not isinstance(replayed.prepared, Prepared):
        return None
    if len(case.history.moments.rows) > MAX_REPLAYED_EVENTS:
        return None
    return replayed_recording(case.history.rank, replayed.prepared, replayed.replay)


def replayed_row(case: Case, recording: Recording, cuts: Sequence[Cut], name: str) -> WhatIfRow | None:
    """Return what the model makes of the requests with some cuts; `None` where they cannot be told as requests."""
    edited = edited_requests(recording.requests, case.history.moments, case.lifetimes, cuts)
    if edited is None:
        return None
    change = Change(name=name, requests=edited.requests, num_before=edited.num_before)
    row = what_if(recording, [change]).rows[-1]
    return row if row.fits else None
