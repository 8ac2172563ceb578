"""Fragmentation in words: how much of what was reserved lay idle in pieces, whose blocks cut it, and what to change.

In: `FragmentationResult` and the out-of-memory, if there was one. Out: `Finding`s.
"""

from __future__ import annotations

from memtrace.allocator.settings import MIB
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.results.diagnosis import FragmentationResult
from memtrace.analysis.results.report import Finding, OomResult
from memtrace.analysis.sentences.words import line_of
from memtrace.units import format_bytes

_WORTH_SAYING_SHARE = 0.15
"""Of the largest reserved bytes."""
_WORTH_SAYING_BYTES = 40 * MIB
"""Two segments that requests below 10 MiB share: as much is idle in the most orderly program."""


def fragmentation_findings(
    history: DeviceHistory, found: FragmentationResult | None, oom: OomResult | None
) -> tuple[Finding, ...]:
    """Return the finding, if fragmentation cost a good part of what was reserved, or ended the run."""
    if found is None or found.wasted_bytes is None or found.max_reserved_bytes is None:
        return ()
    ended_the_run = oom is not None and not oom.predicted and oom.cause == "fragmentation"
    least = max(_WORTH_SAYING_BYTES, int(_WORTH_SAYING_SHARE * found.max_reserved_bytes))
    if found.wasted_bytes < least and not ended_the_run:
        return ()
    largest = found.moments[0]
    return (
        Finding(
            slug="fragmentation",
            severity="error" if ended_the_run else "warning",
            title=_title(found),
            evidence={
                "max_reserved_bytes": found.max_reserved_bytes,
                "wasted_bytes": found.wasted_bytes,
                "fragmented_bytes": found.fragmented_bytes,
                "num_growths": found.num_growths,
                "num_fragmented_growths": found.num_fragmented_growths,
                "free_bytes": sum(pool.free_bytes for pool in largest.pools),
                "largest_free_block_bytes": max((pool.largest_free_block_bytes for pool in largest.pools), default=0),
                "rounding_bytes": sum(pool.internal_bytes or 0 for pool in largest.pools),
                "requested_at": line_of(found.requested_at),
                "is_model": found.is_model,
            },
            change="Allocate what stays first and once, as one buffer that is written in place, or give everything "
            "that comes and goes the same size (pad, or sort batches by length); PYTORCH_ALLOC_CONF="
            "expandable_segments:True joins free pieces of different segments.",
            cost="None in compute; a buffer has to be as large as it will ever be.",
            # Nothing idle in pieces, and a request that failed all the same: what its remedy would save is not known.
            saves_bytes=found.wasted_bytes or None,
            saves_ns=None,
            new_peak_bytes=found.max_reserved_bytes - found.wasted_bytes if found.wasted_bytes else None,
            rank=history.rank.rank,
            where=found.where,
        ),
    )


def _title(found: FragmentationResult) -> str:
    if not found.wasted_bytes:
        return "A request failed although as much was free: no block that it could use was large enough"
    idle, whole = format_bytes(found.wasted_bytes), format_bytes(found.max_reserved_bytes)
    would = "On a GPU the same requests would leave" if found.is_model else "Fragmentation leaves"
    return (
        f"{would} {idle} of {whole} reserved idle in pieces: {found.num_fragmented_growths} times memory is taken from "
        "the device although as much is free between blocks that stay"
    )
