"""What a run needs, judged by a target: of a prediction by the model of the allocator, of a recording by its levels."""

from __future__ import annotations

from memtrace.analysis.device.device_history import build_history
from memtrace.forecast.fixing.results import Measured
from memtrace.forecast.prediction.placed import place
from memtrace.schema.names import Category
from memtrace.store.trace import RankTrace


def predicted_needs(rank: RankTrace, device: str, target_bytes: int, step_s: float | None) -> Measured:
    """Return what a predicted rank needs."""
    placed = place(rank, device, capacity_bytes=target_bytes)
    fits = placed.failed is None
    if not fits:
        placed = place(rank, device, capacity_bytes=None)
    return Measured(
        fits=fits,
        peak_bytes=placed.peak_allocated_bytes,
        reserved_bytes=placed.max_reserved_bytes,
        step_s=step_s,
        by_category=_at_peak(placed.rank, device),
    )


def recorded_needs(rank: RankTrace, device: str, target_bytes: int, step_s: float | None) -> Measured:
    """Return what a recorded rank needed; of a device without segments, the peak is what it reserves."""
    levels = build_history(rank, device, owns_marks=device != "cpu").levels
    peak = int((levels.requested if levels.allocated is None else levels.allocated).max())
    reserved = peak if levels.reserved is None else int(levels.reserved.max())
    return Measured(
        fits=reserved <= target_bytes,
        peak_bytes=peak,
        reserved_bytes=reserved,
        step_s=step_s,
        by_category=_at_peak(rank, device),
    )


def _at_peak(rank: RankTrace, device: str) -> dict[str, int]:
    levels = build_history(rank, device, owns_marks=False).levels
    at = int(levels.requested.argmax())
    found: dict[str, int] = {}
    for (category, _), level in levels.by_kind.items():
        found[Category(category).value] = found.get(Category(category).value, 0) + int(level[at])
    return {name: size for name, size in sorted(found.items(), key=lambda one: -one[1]) if size}
