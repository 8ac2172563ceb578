"""The remedy of a finding as changed requests, so that a what-if and the finding give the same number.

In: a rank, a device, its requests, and the name of a finding. Out: `Edited` requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memtrace.allocator.requests import Requests
from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.advice.edited_requests import Edited, edited_requests
from memtrace.analysis.advice.find import ADVICE
from memtrace.analysis.attribution.inferred_marks import with_inferred_marks
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.diagnosis.leak_findings import remedy_of_leak
from memtrace.analysis.faults.find import FAULTS
from memtrace.errors import MemtraceError
from memtrace.store.trace import RankTrace


def remedied(rank: RankTrace, device: str, requests: Requests, slugs: Sequence[str]) -> list[Edited]:
    """Return the requests as if what a finding proposes had been done, for each of some findings by their names.

    Raises:
        MemtraceError: the device has no such finding with a new peak, or it is of bytes that were not requested here.
    """
    history = build_history(with_inferred_marks(rank), device, owns_marks=False)
    case = Case(history)
    found = [
        one for rule in (remedy_of_leak, *FAULTS, *ADVICE) if history.has_history and (one := rule(case)) is not None
    ]
    cuts = {one.slug: case.cuts_of[one.new_peak_bytes] for one in found if one.new_peak_bytes in case.cuts_of}
    return [_edited(device, case, requests, cuts, slug) for slug in slugs]


def _edited(device: str, case: Case, requests: Requests, cuts: Mapping[str, tuple[Cut, ...]], slug: str) -> Edited:
    if slug not in cuts:
        known = f"here: {', '.join(sorted(cuts))}" if cuts else "no finding here promises a new peak"
        raise MemtraceError(f"{device}: no finding {slug!r} with a remedy to replay", hint=known, slug="no-remedy")
    edited = edited_requests(requests, case.history.moments, case.lifetimes, cuts[slug])
    if edited is None:
        raise MemtraceError(
            f"{device}: what {slug!r} takes away was not requested in the part of the recording that is replayed",
            hint="the new peak of the report is then the recorded level without it",
            slug="no-remedy",
        )
    return edited
