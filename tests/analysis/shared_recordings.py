"""Programs that were recorded wrongly once, recorded one after the other in one process, on a device if there is one.

`python shared_recordings.py CASES FOLDER NAME[:ARGUMENT] …` writes FOLDER/NAME.json or FOLDER/NAME-ARGUMENT.json.
"""

from __future__ import annotations

import contextlib
import gc
import io
import runpy
import sys
from pathlib import Path


def main(cases: Path, folder: Path, names: list[str]) -> None:
    """Record every program."""
    import torch

    import memtrace

    torch.set_num_threads(1)
    if torch.cuda.is_available():
        # They name no device.
        torch.set_default_device("cuda")
    for given in names:
        name, *arguments = given.split(":")
        torch.manual_seed(0)
        sys.argv = [f"{name}.py", *arguments]
        output = folder / f"{'-'.join([name, *arguments])}.json"
        with memtrace.record(output), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(str(cases / f"{name}.py"), run_name="__main__")
        gc.collect()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
