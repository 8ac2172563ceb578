"""A sentence about where the GPU's time goes, for profiles that hold no memory."""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.results.report import RankReport
from memtrace.analysis.results.time import TimeResult
from memtrace.units import format_ns


def time_sentence(ranks: Sequence[RankReport]) -> str | None:
    """Return where the time goes of the rank that computes for the least share of it; `None` where none has any."""
    timed = [(rank.time, rank) for rank in ranks if rank.time is not None and rank.time.whole.window_ns]
    if not timed:
        return None
    time, rank = min(timed, key=lambda one: one[0].whole.compute_ns / one[0].whole.window_ns)
    who = f"Rank {rank.rank}: of" if len(timed) > 1 and rank.rank is not None else "Of"
    return f"{who} {format_ns(time.whole.window_ns)} on the GPU, {_parts(time)}."


def _parts(time: TimeResult) -> str:
    whole = time.whole
    parts = (
        (whole.compute_ns, "are compute"),
        (whole.exposed_ns, "communication that nothing hides"),
        (whole.copy_only_ns, "copies alone"),
        (whole.idle_ns, "idle"),
    )
    told = [f"{100 * part_ns / whole.window_ns:.0f} % {what}" for part_ns, what in parts if part_ns]
    shown = [part for part in told if not part.startswith("0 %")] or told
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
