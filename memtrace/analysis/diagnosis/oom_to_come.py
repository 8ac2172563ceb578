"""It has not died yet: the finding that the steps to come do not fit the device.

In: a predicted steady-state peak. Out: a `Finding`, where even the least of its range is more than the device has.
"""

from __future__ import annotations

from memtrace.analysis.results.report import Finding, Peak, PredictedPeak
from memtrace.schema.names import category_words
from memtrace.units import format_bytes


def ahead_finding(peak: Peak | None, rank: int | None) -> Finding | None:
    """Return the out-of-memory that lies ahead, if it does for certain."""
    if not isinstance(peak, PredictedPeak) or peak.fits is not False:
        return None
    largest = max(peak.by_category, key=lambda name: peak.by_category[name])
    return Finding(
        slug="oom",
        severity="error",
        title=f"The steps after the first need about {format_bytes(peak.needed_bytes)} "
        f"of {format_bytes(peak.capacity_bytes)}: the run will die",
        evidence={
            "predicted": True,
            "low_bytes": peak.low_bytes,
            "high_bytes": peak.high_bytes,
            "needed_bytes": peak.needed_bytes,
            "capacity_bytes": peak.capacity_bytes,
            "by_category": dict(peak.by_category),
            "phase": peak.phase,
            "assumptions": list(peak.assumptions),
        },
        change=f"Make the peak smaller; its largest part: {category_words(largest)}. "
        "What else stands here says by how much each change would lower it.",
        cost="Depends on the change.",
        saves_bytes=None,
        saves_ns=None,
        new_peak_bytes=None,
        rank=rank,
        where=None,
    )
