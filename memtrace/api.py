"""Recording from inside a script, for those who can edit theirs: `start`, `step`, `stop` and `with record(…)`.

Under `memtrace record` the process is recorded already, so `start` and `stop` do nothing there and only `step` counts:
a script may keep these calls.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memtrace.errors import RecordError
from memtrace.schema.options import DEFAULT_STEPS, RecordOptions

if TYPE_CHECKING:
    from memtrace.launch.output import Output


@dataclass(frozen=True, slots=True)
class _Running:
    output: Output
    options: RecordOptions


_running: _Running | None = None


def start(
    output: str | Path = "trace.json",
    *,
    force: bool = False,
    steps: str = DEFAULT_STEPS,
    stacks: str = "python",
    early_stacks: bool = False,
    device: str = "auto",
    profile: bool = False,
) -> None:
    """Begin to record this process; `stop` writes `output` (.json or .json.gz). Options as of `memtrace record`.

    With `early_stacks`, allocations on the CPU have stacks from here on. Otherwise they have them from the first
    training forward on, since the frames of building a model and of loading data take long to record.

    Call it before the model is built, or its parameters are known by their owners only and have no stack.

    Raises:
        RecordError: a recording begun by `start` runs already. OutputError: the output exists or cannot be written.
        ValueError: `steps` is not a list of steps.
    """
    global _running
    from memtrace.hooks import recorder
    from memtrace.launch.output import Output, check_free, prepare_parts, write_launcher
    from memtrace.launch.watch_library import watch_library
    from memtrace.schema.options import StepSelection
    from memtrace.schema.records import PARTS_SUFFIX

    if _running is not None:
        raise RecordError("memtrace.start(): a recording runs already", hint="call memtrace.stop() first")
    if recorder.is_recording():
        return
    StepSelection.parse(steps)
    importlib.import_module("torch")
    path = Path(output)
    check_free(path, force=force)
    parts_dir = path.with_name(path.name + PARTS_SUFFIX).absolute()
    planned = Output(path=path, parts_dir=parts_dir, launcher_rank=None, force=force)
    prepare_parts(planned)
    write_launcher(planned, {})
    options = RecordOptions(
        parts_dir=str(parts_dir),
        steps=steps,
        stacks=stacks,
        early_stacks=early_stacks,
        device=device,
        profile=profile,
        watch_library=watch_library(),
    )
    recorder.install(options)
    _running = _Running(planned, options)


def step() -> None:
    """End a training step here. From the first call on, steps end at these calls and nowhere else."""
    from memtrace.hooks import recorder

    recorder.mark_step()


def follow_steps() -> None:
    """Let only `step` end steps from now on, for a trainer that will say so before its first step has ended.

    Without this, the first optimizer step ends a step, and the first call of `step` after it another.
    """
    from memtrace.hooks import recorder

    recorder.follow_marks()


def stop() -> Path | None:
    """End the recording that `start` began, write its output and return the path; `None` if none runs.

    Raises:
        OutputError: the output cannot be written; its parts are kept.
    """
    global _running
    if _running is None:
        return None
    from memtrace.hooks import recorder
    from memtrace.launch.gather import gather, trace_header

    running, _running = _running, None
    recorder.uninstall()
    written = gather(running.output, trace_header(sys.argv, running.options, None))
    return written.path if written is not None else None


@contextmanager
def record(output: str | Path = "trace.json", *, force: bool = False, steps: str = DEFAULT_STEPS) -> Iterator[None]:
    """Record what runs inside a `with` block; the trace is written at its end, also where an exception ends it.

    Raises:
        RecordError, OutputError: as of `start` and `stop`.
    """
    start(output, force=force, steps=steps)
    try:
        yield
    finally:
        stop()
