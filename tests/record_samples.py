"""Record the samples, each with its fault and without, in one process: starting torch takes longer than they do.

`python tests/record_samples.py FOLDER`, from the repository root, writes FOLDER/NAME.json for each of `RUNS`.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

SAMPLES = Path(__file__).parent.parent / "samples"

RUNS = {
    "big_logits": "",
    "big_logits healthy": "--chunks 8",
    "foreach_peak": "",
    "foreach_peak healthy": "--no-foreach",
    "foreach_peak fused": "--fused",
    "fragmented": "",
    "fragmented healthy": "--preallocate",
    "leak_losses": "",
    "leak_losses healthy": "--detach",
    "oom_step_two": "",
    "oom_step_two healthy": "--optimizer sgd --no-keep-outputs",
    "train_gpt": "--steps 3 --layers 2 --hidden 64 --micro-batch 4",
    "train_gpt checkpointing": "--steps 3 --layers 2 --hidden 64 --micro-batch 4 --checkpointing --accumulation 2",
    "train_resnet": "--steps 3 --width 4 --micro-batch 4 --image-size 16",
}
"""Options of each run by its name, which begins with the name of the script."""


def main(folder: Path) -> None:
    """Record every run."""
    import memtrace

    for name, options in RUNS.items():
        script = str(SAMPLES / f"{name.split()[0]}.py")
        sys.argv = [script, *options.split(), "--device", "cpu"]
        with memtrace.record(folder / f"{name}.json"):
            runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
