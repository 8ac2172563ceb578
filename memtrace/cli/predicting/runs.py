"""Predicted runs for the command line: one for a GPU, or one for each compute capability of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from memtrace.cli.predicting.engine import ENDLESS_BYTES
from memtrace.cli.shell.told import say
from memtrace.schema.predicted import DRIVERLESS
from memtrace.schema.redaction import Redaction

if TYPE_CHECKING:
    from memtrace.forecast.gpus import Gpu
    from memtrace.forecast.prediction.results import Engine, GpuVerdict
    from memtrace.store.trace import Trace


def no_progress() -> None:
    """Say nothing of how far a run has come."""


class PredictedRuns:
    """Runs a command as on one GPU after the other; `stdout` is the file descriptor that it prints to.

    It runs as `rank`, of which `told_dir` is where ranks leave what they tell each other, from one run to the next.
    `progress` is asked before each run for what says how far it has come.
    """

    def __init__(
        self,
        command: Sequence[str],
        path: Path,
        engine: Engine,
        *,
        num_steps: int,
        world_size: int,
        rank: int = 0,
        told_dir: Path | None = None,
        gpus_per_node: int | None,
        redaction: Redaction,
        force: bool,
        allow_writes: bool,
        stdout: int | None,
        stderr: int | None = None,
        variables: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        progress: Callable[[], Callable[[Path], None] | None] = no_progress,
    ) -> None:
        self._command = command
        self._path = path
        self._engine = engine
        self._num_steps = num_steps
        self._world_size = world_size
        self._rank, self._told_dir = rank, told_dir
        self._gpus_per_node = gpus_per_node
        self._redaction = redaction
        self._force = force
        self._allow_writes = allow_writes
        self._stdout, self._stderr = stdout, stderr
        self._variables = dict(variables or {})
        self._cwd = cwd
        self._progress = progress

    def predicted(self, gpu: Gpu, *, without_end: bool = False) -> tuple[Trace, GpuVerdict]:
        """Run the command as on this GPU and return its trace, as a recording would be, and what is said of the GPU.

        `without_end` is for one like it that has more memory than there is.

        Raises:
            MemtraceError: it cannot be predicted.
        """
        from memtrace.forecast.prediction.driverless import driverless_trace
        from memtrace.forecast.prediction.judge import placed_trace

        gpu = replace(gpu, memory_bytes=ENDLESS_BYTES) if without_end else gpu
        if self._engine.name != DRIVERLESS:
            return placed_trace(self.run(gpu), gpu, engine=self._engine)
        return driverless_trace(self.run(gpu), gpu, self._engine, lambda: self.run(gpu, without_end=True))

    def run(self, gpu: Gpu, *, without_end: bool = False) -> Trace:
        """Run the command as on this GPU, or on one like it with memory `without_end`, and return what it left.

        Raises:
            MemtraceError: it cannot be predicted.
        """
        from memtrace.cli.predicting.engine import devices
        from memtrace.launch.asked_ranks import run_as_asked
        from memtrace.launch.prediction import predict
        from memtrace.schema.options import PredictOptions

        found, num_gpus = self._variables, self._gpus_per_node or min(self._world_size, gpu.gpus_per_node)
        if self._engine.name == DRIVERLESS:
            found = {**found, **devices(self._command, gpu, num_devices=num_gpus, without_end=without_end)}
        options = PredictOptions(
            gpu_name=gpu.name,
            gpu_bytes=gpu.memory_bytes,
            capability=gpu.capability,
            num_steps=self._num_steps,
            world_size=self._world_size,
            rank=self._rank,
            told_dir=None if self._told_dir is None else str(self._told_dir),
            gpus_per_node=num_gpus,
            engine=self._engine.name,
        )

        def run(options: PredictOptions) -> Trace:
            if options.rank != self._rank:
                say(f"memtrace: running rank {options.rank} first, for what it tells rank {self._rank}")
            return predict(
                self._command,
                self._path,
                options,
                force=self._force,
                allow_writes=self._allow_writes,
                stdout=self._stdout,
                stderr=self._stderr,
                variables=found,
                cwd=self._cwd,
                progress=self._progress(),
            )

        return run_as_asked(run, options)

    def judge(self, gpus: Sequence[Gpu]) -> tuple[list[GpuVerdict], list[tuple[str, str]]]:
        """Run once for each compute capability of these GPUs, and say which of them fit.

        Beside the verdicts: the names of the GPUs on which the program cannot be predicted, and why.
        """
        from memtrace.errors import MemtraceError
        from memtrace.forecast.prediction.judge import capability_classes

        found: list[GpuVerdict] = []
        refused: list[tuple[str, str]] = []
        for ran_as, members in capability_classes(gpus):
            major, minor = ran_as.capability
            say(f"memtrace: running as on {ran_as.name} (compute capability {major}.{minor})")
            try:
                found += self._judged(ran_as, members)
            except MemtraceError as error:
                # A program may refuse an older GPU, for want of bfloat16.
                refused += [(one.name, shown(error.message, self._redaction, self._command)) for one in members]
        return found, refused

    def _judged(self, ran_as: Gpu, members: Sequence[Gpu]) -> Iterator[GpuVerdict]:
        """Yield a verdict for each GPU of one compute capability, of which `ran_as` has the most memory."""
        from memtrace.forecast.prediction.driverless import verdict_without_a_run
        from memtrace.forecast.prediction.judge import judge_all

        if self._engine.name != DRIVERLESS:
            yield from judge_all(self.run(ran_as), members, ran_as)
            return
        largest = self.predicted(ran_as)[1]
        for gpu in members:
            known = verdict_without_a_run(gpu, largest)
            # Where more was reserved than it has, only torch itself can say whether what it caches can be given back.
            yield known if known is not None else self.predicted(gpu)[1]


def shown(reason: str, redaction: Redaction, command: Sequence[str]) -> str:
    """Return a reason, which may quote the program's own error or name a folder, without what is not to be seen."""
    from memtrace.store.redaction.redact import redacted_warnings
    from memtrace.store.trace import LoadWarning

    (found,) = redacted_warnings([LoadWarning(slug="predict-failed", message=reason)], redaction, paths=command)
    return found.message
