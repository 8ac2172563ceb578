"""A callback for Lightning's `Trainer` that records training.

trainer = lightning.Trainer(..., callbacks=[MemtraceCallback("trace.json")])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from memtrace.integrations.training import TrainingRecording


class MemtraceCallback(Callback):  # type: ignore[misc]  # its base has no types for mypy
    """Record from the moment it is made, end steps where the trainer does, write the trace when training ends.

    Make it before the model, so that parameters have the stacks that built them.
    """

    def __init__(self, output: str | Path = "trace.json", *, force: bool = False, **options: Any) -> None:
        """Begin to record; `output`, `force` and `options` (steps, stacks, device …) are those of `memtrace.start`.

        Raises:
            RecordError, OutputError, ValueError: as `memtrace.start`.
        """
        self.recording = TrainingRecording(output, force=force, options=options)
        self._num_steps = 0

    def on_train_start(self, trainer: Any, _module: Any) -> None:
        """Leave it to the trainer where steps end."""
        self._num_steps = trainer.global_step
        self.recording.begin()

    def on_train_batch_end(self, trainer: Any, *_args: Any, **_kwargs: Any) -> None:
        """End a step if its optimizer has stepped; with accumulated gradients, most batches end none."""
        if trainer.global_step != self._num_steps:
            self._num_steps = trainer.global_step
            self.recording.step()

    def on_fit_end(self, *_args: Any) -> None:
        """Write the trace."""
        self.recording.end()

    def on_exception(self, *_args: Any) -> None:
        """Write the trace of a training that failed."""
        self.recording.end()
