"""One run of `memtrace fit --predict`: predicted, and judged by the GPU that is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from memtrace.forecast.fitting.results import Measured
    from memtrace.forecast.gpus import Gpu


def gpu_of(capacity: int | None, name: str | None) -> Gpu:
    """Return the GPU that the options name, or one of the capacity that they give.

    Raises:
        UsageError: they say neither.
    """
    from memtrace.forecast.gpus import gpu_named

    if name is None and capacity is None:
        raise click.UsageError("--predict needs to know the GPU: --gpu with the name of one, or --capacity")
    return gpu_named(name if name is not None else f"{capacity}B")


def predict_run(command: Sequence[str], size: int, num_steps: int, gpu: Gpu, *, log: Path) -> Measured:
    """Predict a command that trains with one micro-batch and return what it needs.

    What it prints goes to `log`, which stays where it cannot be predicted.

    Raises:
        MemtraceError: it cannot be predicted.
    """
    import os
    import tempfile

    from memtrace.errors import MemtraceError
    from memtrace.forecast.fitting.predicted_trials import measure_predicted
    from memtrace.launch.prediction import predict
    from memtrace.schema.options import PredictOptions

    options = PredictOptions(
        gpu_name=gpu.name, gpu_bytes=gpu.memory_bytes, capability=gpu.capability, num_steps=num_steps
    )
    with tempfile.TemporaryDirectory(prefix=".memtrace-fit-", dir=log.parent) as folder, log.open("wb") as file:
        path, output = Path(folder) / "predicted.json", os.dup(file.fileno())
        try:
            trace = predict(command, path, options, force=True, allow_writes=False, stdout=output, stderr=output)
            found = measure_predicted(trace, gpu, num_steps)
        except MemtraceError as error:
            message = f"the run with micro-batch {size}: {error.message}"
            raise MemtraceError(message, hint=f"what it printed is in {log}", slug=error.slug) from None
        finally:
            os.close(output)
    log.unlink(missing_ok=True)
    return found
