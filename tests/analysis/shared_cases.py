"""Programs that people reported, recorded one after the other in one process, each with its fault and without.

`python shared_cases.py CASES FOLDER NAME …` writes FOLDER/NAME.json and FOLDER/NAME-healthy.json for each NAME; of a
name with a colon, as NAME:torchmetrics, only where that package is there.
"""

from __future__ import annotations

import contextlib
import gc
import io
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path


def main(cases: Path, folder: Path, names: list[str]) -> None:
    """Record every program twice."""
    import torch

    import memtrace

    torch.set_num_threads(1)
    for given in names:
        name, _, needed = given.partition(":")
        if needed and find_spec(needed) is None:
            continue
        for flag in ("", "--healthy"):
            torch.manual_seed(0)
            if torch.cuda.is_available():
                # A step that does not go beyond the highest of the programs before would have no mark.
                torch.cuda.reset_peak_memory_stats()
            sys.argv = [f"{name}.py", *([flag] if flag else [])]
            output = folder / f"{name}{flag[1:]}.json"
            with memtrace.record(output), contextlib.redirect_stdout(io.StringIO()):
                runpy.run_path(str(cases / f"{name}.py"), run_name="__main__")
            # One of them switches the collector off.
            gc.enable()
            gc.collect()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
