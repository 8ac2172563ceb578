"""One run of `memtrace fit --predict`: predicted, and judged by the GPU that is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memtrace.cli.shell.told import say

if TYPE_CHECKING:
    from memtrace.cli.predicting.runs import PredictedRuns
    from memtrace.forecast.fitting.results import Measured
    from memtrace.forecast.gpus import Gpu
    from memtrace.forecast.prediction.results import Engine


def gpu_of(capacity: int | None, name: str | None) -> Gpu:
    """Return the GPU that the options name, or one of the capacity that they give.

    Raises:
        UsageError: they say neither.
    """
    from memtrace.forecast.gpus import gpu_named

    if name is None and capacity is None:
        raise click.UsageError("--predict needs to know the GPU: --gpu with the name of one, or --capacity")
    return gpu_named(name if name is not None else f"{capacity}B")


def engine_of(asked: str, command: Sequence[str], gpu: Gpu) -> Engine:
    """Return the engine for a search, which `memtrace predict` would take as well, and say which it is.

    Raises:
        MemtraceError: one is asked for that cannot run.
    """
    from memtrace.cli.predicting.engine import chosen_engine

    engine = chosen_engine(asked, command, gpu)
    say(f"memtrace: engine {engine.name} ({engine.why})")
    return engine


def predict_run(command: Sequence[str], size: int, num_steps: int, gpu: Gpu, engine: Engine, *, log: Path) -> Measured:
    """Predict a command that trains with one micro-batch and return what it needs.

    What it prints goes to `log`, which stays where it cannot be predicted.

    Raises:
        MemtraceError: it cannot be predicted.
    """
    import os
    import tempfile

    from memtrace.cli.predicting.runs import PredictedRuns
    from memtrace.errors import MemtraceError
    from memtrace.schema.redaction import Redaction

    with tempfile.TemporaryDirectory(prefix=".memtrace-fit-", dir=log.parent) as folder, log.open("wb") as file:
        output = os.dup(file.fileno())
        runs = PredictedRuns(
            command,
            Path(folder) / "predicted.json",
            engine,
            num_steps=num_steps,
            world_size=1,
            gpus_per_node=None,
            redaction=Redaction.NOTHING,
            force=True,
            allow_writes=False,
            stdout=output,
            stderr=output,
        )
        try:
            found = _measured(runs, gpu, engine, num_steps)
        except MemtraceError as error:
            message = f"the run with micro-batch {size}: {error.message}"
            raise MemtraceError(message, hint=f"what it printed is in {log}", slug=error.slug) from None
        finally:
            os.close(output)
    log.unlink(missing_ok=True)
    return found


def _measured(runs: PredictedRuns, gpu: Gpu, engine: Engine, num_steps: int) -> Measured:
    from memtrace.forecast.fitting.predicted_trials import measure_driverless, measure_predicted
    from memtrace.schema.predicted import DRIVERLESS

    if engine.name != DRIVERLESS:
        return measure_predicted(runs.run(gpu), gpu, num_steps)
    return measure_driverless(runs.run(gpu), gpu, num_steps, lambda: runs.run(gpu, without_end=True))
