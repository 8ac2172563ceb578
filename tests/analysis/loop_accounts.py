"""What a report says of the steps of a loop, in the form in which those of `loops_of_strangers` say it themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from memtrace.analysis.results.report import RankReport


def record_loops(root: Path, folder: Path) -> None:
    """Record every loop into a folder, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(root / "tests/analysis/loops_of_strangers.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


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
