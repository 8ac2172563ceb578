"""Predicted runs for the command line: one for a GPU, or one for each compute capability of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memtrace.schema.redaction import Redaction

if TYPE_CHECKING:
    from memtrace.forecast.gpus import Gpu
    from memtrace.forecast.prediction.results import GpuVerdict
    from memtrace.store.trace import Trace


class PredictedRuns:
    """Runs a command as on one GPU after the other; `stdout` is the file descriptor that it prints to."""

    def __init__(
        self,
        command: Sequence[str],
        path: Path,
        *,
        num_steps: int,
        world_size: int,
        gpus_per_node: int | None,
        redaction: Redaction,
        force: bool,
        allow_writes: bool,
        stdout: int | None,
    ) -> None:
        self._command = command
        self._path = path
        self._num_steps = num_steps
        self._world_size = world_size
        self._gpus_per_node = gpus_per_node
        self._redaction = redaction
        self._force = force
        self._allow_writes = allow_writes
        self._stdout = stdout

    def run(self, gpu: Gpu) -> Trace:
        """Run the command as on this GPU.

        Raises:
            MemtraceError: it cannot be predicted.
        """
        from memtrace.launch.prediction import predict
        from memtrace.schema.options import PredictOptions

        options = PredictOptions(
            gpu_name=gpu.name,
            gpu_bytes=gpu.memory_bytes,
            capability=gpu.capability,
            num_steps=self._num_steps,
            world_size=self._world_size,
            gpus_per_node=self._gpus_per_node or min(self._world_size, gpu.gpus_per_node),
        )
        return predict(
            self._command, self._path, options, force=self._force, allow_writes=self._allow_writes, stdout=self._stdout
        )

    def judge(self, gpus: Sequence[Gpu]) -> tuple[list[GpuVerdict], list[tuple[str, str]]]:
        """Run once for each compute capability of these GPUs, and say which of them fit.

        Beside the verdicts: the names of the GPUs on which the program cannot be predicted, and why.
        """
        from memtrace.errors import MemtraceError
        from memtrace.forecast.prediction.judge import capability_classes, judge_all

        found: list[GpuVerdict] = []
        refused: list[tuple[str, str]] = []
        for ran_as, members in capability_classes(gpus):
            major, minor = ran_as.capability
            click.echo(f"memtrace: running as on {ran_as.name} (compute capability {major}.{minor})", err=True)
            try:
                found += judge_all(self.run(ran_as), members, ran_as)
            except MemtraceError as error:
                # A program may refuse an older GPU, for want of bfloat16.
                refused += [(one.name, self._shown(error.message)) for one in members]
        return found, refused

    def _shown(self, reason: str) -> str:
        """Return a reason, which may quote the program's own error, without what is not to be seen."""
        from memtrace.store.redaction.redact import redacted_warnings
        from memtrace.store.trace import LoadWarning

        (shown,) = redacted_warnings(
            [LoadWarning(slug="predict-failed", message=reason)], self._redaction, paths=self._command
        )
        return shown.message
