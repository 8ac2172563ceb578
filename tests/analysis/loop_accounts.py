"""What a report says of the steps of a loop, in the form in which those of `loops_of_strangers` say it themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memtrace.analysis.results.report import RankReport
from tests.analysis.recorded_script import run_script


def record_loops(root: Path, folder: Path) -> None:
    """Record every loop into a folder, in a process of its own."""
    run_script(root, "loops_of_strangers", folder, timeout_s=600)


def told(rank: RankReport) -> list[dict[str, Any]]:
    """Return what a report says of each step that ended."""
    times = {} if rank.step_times is None else {one.step: one for one in rank.step_times.steps}
    return [
        {
            "owned": {one.category: one.storage_bytes for one in step.owned},
            "phases": [one.phase for one in step.phases],
            "samples": times[step.step].samples,
            "microbatches": step.num_microbatches,
        }
        for step in rank.steps
        if step.end_ns is not None
    ]
