"""What a sentence about the peak adds where steps were not recorded, so that it is never taken for that of the run."""

from __future__ import annotations

from memtrace.analysis.results.report import RankReport
from memtrace.units import format_bytes


def of_recorded(rank: RankReport) -> str:
    """Return that a peak is that of the recorded steps only, where another was higher or may have been."""
    found = rank.unrecorded
    if found is None or rank.peak.step is None or (found.higher_step is None and found.num_marked == found.num_steps):
        return ""
    return ", of the recorded steps"


def higher_step(rank: RankReport) -> str:
    """Return the step that was not recorded and was higher, or the most that is known of one."""
    found = rank.unrecorded
    if found is None:
        return ""
    if found.higher_step is not None:
        mark = format_bytes(found.higher_bytes)
        return f" Step {found.higher_step:,}, which was not recorded, reached {mark} (its high-water mark)."
    if found.host_step is not None:
        return f" The host memory of the process was highest in step {found.host_step:,}, which was not recorded."
    return ""
