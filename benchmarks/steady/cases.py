"""The runs whose steady state is predicted: models, optimizers, precisions, and ways to loop.

`small` batches let parameters and states dominate, the others activations.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.steady.cut import Cut

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "benchmarks" / "programs" / "train_steps.py"
_SMALL = "--hidden 256 --micro-batch 1 --sequence 32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One training run."""

    name: str
    arguments: str
    untold: frozenset[Cut] = frozenset()
    """Cuts at which nothing in the recording can tell what the next step does; the range must hold it."""


LAST_LINE = frozenset({Cut.STEP, Cut.BACKWARD})
"""Cuts before the last line of the loop has run, which may keep the gradients."""

CASES = (
    Case(name="gpt, adamw for-loop", arguments=""),
    Case(name="gpt, adamw for-loop, small batch", arguments=_SMALL),
    Case(name="gpt, adamw foreach, small batch", arguments=f"--implementation foreach {_SMALL}"),
    Case(name="gpt, adamw fused, small batch", arguments=f"--implementation fused {_SMALL}"),
    Case(
        name="gpt, adam foreach with decay, small batch",
        arguments=f"--optimizer adam --implementation foreach {_SMALL}",
    ),
    Case(name="gpt, sgd, small batch", arguments=f"--optimizer sgd {_SMALL}"),
    Case(name="gpt, sgd without decay", arguments="--optimizer sgd --weight-decay 0"),
    Case(name="gpt, momentum, small batch", arguments=f"--optimizer momentum {_SMALL}"),
    Case(
        name="gpt, momentum foreach, small batch", arguments=f"--optimizer momentum --implementation foreach {_SMALL}"
    ),
    Case(name="gpt, adafactor, small batch", arguments=f"--optimizer adafactor {_SMALL}"),
    Case(
        name="gpt, adafactor foreach, small batch", arguments=f"--optimizer adafactor --implementation foreach {_SMALL}"
    ),
    Case(name="gpt, adagrad foreach, small batch", arguments=f"--optimizer adagrad --implementation foreach {_SMALL}"),
    Case(name="gpt, rmsprop, small batch", arguments=f"--optimizer rmsprop {_SMALL}"),
    Case(name="gpt, adamw, bf16", arguments="--bf16"),
    Case(name="gpt, adamw, 4 microbatches", arguments="--accumulation 4"),
    Case(name="gpt, adamw, 4 microbatches, small batch", arguments=f"--accumulation 4 {_SMALL}"),
    Case(name="gpt, adamw, checkpointing", arguments="--checkpointing --micro-batch 8"),
    Case(name="gpt, adamw, explicit attention, dropout", arguments="--attention explicit --dropout 0.1"),
    Case(
        name="gpt, adamw, gradients kept by the first line of the loop",
        arguments=f"--keep-gradients --zero-grad first {_SMALL}",
    ),
    Case(
        name="gpt, adamw, gradients kept by the last line of the loop",
        arguments=f"--keep-gradients --zero-grad last {_SMALL}",
        untold=LAST_LINE,
    ),
    Case(name="gpt, adamw, zero_grad before backward", arguments="--zero-grad before-backward"),
    Case(
        name="resnet, momentum, zero_grad before backward",
        arguments="--model resnet --hidden 16 --sequence 32 --optimizer momentum --zero-grad before-backward",
    ),
    Case(name="resnet, adamw", arguments="--model resnet --hidden 32 --sequence 16"),
    Case(
        name="resnet, adafactor, bf16",
        arguments="--model resnet --hidden 24 --sequence 16 --optimizer adafactor --bf16",
    ),
    Case(name="gpt2, adamw", arguments="--model hf-gpt2"),
    Case(name="gpt2, adamw foreach, bf16", arguments="--model hf-gpt2 --bf16 --implementation foreach"),
    Case(name="gpt2, momentum, zero_grad first", arguments="--model hf-gpt2 --optimizer momentum --zero-grad first"),
    Case(name="llama, adamw, small batch", arguments=f"--model hf-llama {_SMALL}"),
    Case(name="llama, adafactor", arguments="--model hf-llama --optimizer adafactor"),
    Case(
        name="llama, adamw, checkpointing, 2 microbatches",
        arguments="--model hf-llama --checkpointing --accumulation 2",
    ),
)


def record(case: Case, folder: Path) -> Path:
    """Run a case recorded, in a process of its own, and return the trace.

    Raises:
        RuntimeError: it failed.
    """
    trace = folder / f"{case.name.replace(' ', '_')}.json"
    program = [sys.executable, str(PROGRAM), *case.arguments.split()]
    command = [sys.executable, "-m", "memtrace", "record", "-o", str(trace), "--", *program]
    # One thread: the rest of the machine is left alone, and buffers of threads do not depend on its cores.
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, capture_output=True, text=True, env=environ)
    if ran.returncode:
        raise RuntimeError(f"{case.name} failed:\n{ran.stderr[-2000:]}")
    return trace
