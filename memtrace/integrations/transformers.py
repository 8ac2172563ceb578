"""A callback for `transformers.Trainer` that records training.

trainer = Trainer(..., callbacks=[MemtraceCallback("trace.json")])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from memtrace.integrations.training import TrainingRecording


class MemtraceCallback(TrainerCallback):  # type: ignore[misc]  # its base has no types for mypy
    """Record from the moment it is made, end steps where the trainer does, write the trace when training ends.

    Make it before the model, so that parameters have the stacks that built them.
    """

    def __init__(self, output: str | Path = "trace.json", *, force: bool = False, **options: Any) -> None:
        """Begin to record; `output`, `force` and `options` (steps, stacks, device …) are those of `memtrace.start`.

        Raises:
            RecordError, OutputError, ValueError: as `memtrace.start`.
        """
        self.recording = TrainingRecording(output, force=force, options=options)

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        """Leave it to the trainer where steps end."""
        self.recording.begin()

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        """End a step: one optimizer step, however many micro-batches it has."""
        self.recording.step()

    def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Write the trace."""
        self.recording.end()
