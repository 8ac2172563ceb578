"""The runs whose steady state is predicted: models, optimizers, precisions, and ways to loop.

`small` batches let parameters and states dominate, the others activations.
"""

from __future__ import annotations

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
    options: str
    """Options of the program, but the number of steps."""
    untold: frozenset[Cut] = frozenset()
    """Cuts at which nothing in the recording can tell what the next step does; the range must hold it."""

    @property
    def num_ranks(self) -> int:
        """Processes that it takes."""
        return 1

    def arguments(self, steps: int) -> list[str]:
        """Return the program's arguments."""
        return [*self.options.split(), "--steps", str(steps)]


LAST_LINE = frozenset({Cut.STEP, Cut.BACKWARD})
"""Cuts before the last line of the loop has run, which may keep the gradients."""

CASES = (
    Case(name="gpt, adamw for-loop", options=""),
    Case(name="gpt, adamw for-loop, small batch", options=_SMALL),
    Case(name="gpt, adamw foreach, small batch", options=f"--implementation foreach {_SMALL}"),
    Case(name="gpt, adamw fused, small batch", options=f"--implementation fused {_SMALL}"),
    Case(
        name="gpt, adam foreach with decay, small batch",
        options=f"--optimizer adam --implementation foreach {_SMALL}",
    ),
    Case(name="gpt, sgd, small batch", options=f"--optimizer sgd {_SMALL}"),
    Case(name="gpt, sgd without decay", options="--optimizer sgd --weight-decay 0"),
    Case(name="gpt, momentum, small batch", options=f"--optimizer momentum {_SMALL}"),
    Case(name="gpt, momentum foreach, small batch", options=f"--optimizer momentum --implementation foreach {_SMALL}"),
    Case(name="gpt, adafactor, small batch", options=f"--optimizer adafactor {_SMALL}"),
    Case(
        name="gpt, adafactor foreach, small batch", options=f"--optimizer adafactor --implementation foreach {_SMALL}"
    ),
    Case(name="gpt, adagrad foreach, small batch", options=f"--optimizer adagrad --implementation foreach {_SMALL}"),
    Case(name="gpt, rmsprop, small batch", options=f"--optimizer rmsprop {_SMALL}"),
    Case(name="gpt, adamw, bf16", options="--bf16"),
    Case(name="gpt, adamw, 4 microbatches", options="--accumulation 4"),
    Case(name="gpt, adamw, 4 microbatches, small batch", options=f"--accumulation 4 {_SMALL}"),
    Case(name="gpt, adamw, checkpointing", options="--checkpointing --micro-batch 8"),
    Case(name="gpt, adamw, explicit attention, dropout", options="--attention explicit --dropout 0.1"),
    Case(
        name="gpt, adamw, gradients kept by the first line of the loop",
        options=f"--keep-gradients --zero-grad first {_SMALL}",
    ),
    Case(
        name="gpt, adamw, gradients kept by the last line of the loop",
        options=f"--keep-gradients --zero-grad last {_SMALL}",
        untold=LAST_LINE,
    ),
    Case(name="gpt, adamw, zero_grad before backward", options="--zero-grad before-backward"),
    Case(
        name="resnet, momentum, zero_grad before backward",
        options="--model resnet --hidden 16 --sequence 32 --optimizer momentum --zero-grad before-backward",
    ),
    Case(name="resnet, adamw", options="--model resnet --hidden 32 --sequence 16"),
    Case(
        name="resnet, adafactor, bf16",
        options="--model resnet --hidden 24 --sequence 16 --optimizer adafactor --bf16",
    ),
    Case(name="gpt2, adamw", options="--model hf-gpt2"),
    Case(name="gpt2, adamw foreach, bf16", options="--model hf-gpt2 --bf16 --implementation foreach"),
    Case(name="gpt2, momentum, zero_grad first", options="--model hf-gpt2 --optimizer momentum --zero-grad first"),
    Case(name="llama, adamw, small batch", options=f"--model hf-llama {_SMALL}"),
    Case(name="llama, adafactor", options="--model hf-llama --optimizer adafactor"),
    Case(
        name="llama, adamw, checkpointing, 2 microbatches",
        options="--model hf-llama --checkpointing --accumulation 2",
    ),
)
