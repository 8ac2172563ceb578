"""Runs of `memtrace fix`: a program under changes, predicted or real for a few steps, and the survey that it leaves.

In: the command as it would be typed, and the changes. Out: the trace, and what each process surveyed, as plain values.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memtrace.errors import MemtraceError, RecordError
from memtrace.launch.command import PACKAGE_DIR, resolve, run_command
from memtrace.launch.gather import trace_header
from memtrace.launch.prediction import predict
from memtrace.launch.watch_library import watch_library
from memtrace.schema.changes import ALLOCATOR_VARIABLE, Changes
from memtrace.schema.options import PredictOptions, RecordOptions, SurveyOptions
from memtrace.store.parts.folder import part_names, read_parts
from memtrace.store.trace import Trace

PLACE = "{mbs}"
"""What stands in a command for the micro-batch."""
ACCUMULATION_PLACE = "{accum}"
"""What stands in a command for the micro-batches that are accumulated before a step."""
_MAX_SURVEY_BYTES = 1 << 30
_TAIL_BYTES = 4000
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit): ")


def command_with(
    command: Sequence[str], changes: Changes, micro_batch: int | None, accumulation: int | None = None
) -> list[str]:
    """Return a command with micro-batch and accumulation in their places.

    >>> command_with(["python", "train.py", "--batch={mbs}"], Changes(micro_batch=4), 8)
    ['python', 'train.py', '--batch=4']
    >>> command_with(["train", "{mbs}", "{accum}"], Changes(micro_batch=4, accumulation=2), 8, 1)
    ['train', '4', '2']
    """
    for place, size in (
        (PLACE, changes.micro_batch or micro_batch),
        (ACCUMULATION_PLACE, changes.accumulation or accumulation),
    ):
        if size is not None:
            command = [word.replace(place, str(size)) for word in command]
    return list(command)


def predict_changed(
    command: Sequence[str], gpu: PredictOptions, survey: SurveyOptions, changes: Changes, *, log: Path
) -> tuple[Trace, list[Any]]:
    """Predict a changed program; return its trace and what its processes surveyed.

    Raises:
        MemtraceError: it cannot be predicted; the surveys are lost.
    """
    with _survey_folder() as folder, _descriptor(log) as output:
        try:
            trace = predict(
                command,
                Path(folder) / "trace.json",
                gpu,
                force=True,
                allow_writes=False,
                stdout=output,
                stderr=output,
                survey=replace(survey, folder=folder),
                changes=changes,
            )
        except MemtraceError as error:
            said = "" if "exit status" not in error.message else f": {last_line(log)}"
            failure = RecordError(f"{error.message}{said}", hint=error.hint, slug=error.slug)
            raise ChangedRunError(failure, surveys_in(folder)) from error
        return trace, surveys_in(folder)


def run_changed(
    command: Sequence[str], survey: SurveyOptions, changes: Changes, *, log: Path
) -> tuple[Trace, list[Any]]:
    """Run a changed program for the steps of the survey; return its trace and what its processes surveyed.

    Raises:
        MemtraceError: it failed.
    """
    environ = dict(os.environ)
    resolve(command[0], environ)
    if changes.allocator is not None:
        environ[ALLOCATOR_VARIABLE] = changes.allocator
    with _survey_folder() as folder, _descriptor(log) as output:
        parts = Path(folder) / "parts"
        parts.mkdir()
        options = RecordOptions(
            parts_dir=str(parts),
            steps="1-",
            stacks="none",
            launcher_pid=os.getpid(),
            package_dir=str(PACKAGE_DIR),
            watch_library=watch_library(),
            survey=replace(survey, folder=folder),
            changes=changes,
        )
        status = run_command(command, options, environ, stdout=output, stderr=output)
        if status:
            raise ChangedRunError(
                RecordError(f"it ended with exit status {status}: {last_line(log)}"), surveys_in(folder)
            )
        if not part_names(parts):
            raise RecordError("no Python process that imported torch was seen", slug="fix-nothing")
        ranks, left_out = read_parts(parts)
        header = trace_header(command, options, status)
        return Trace(header=header, ranks=tuple(ranks), path="trace.json", warnings=tuple(left_out)), surveys_in(folder)


def run_applied(command: Sequence[str], changes: Changes) -> int:
    """Run a program with changes as it would be run without memtrace; return its exit status."""
    environ = dict(os.environ)
    resolve(command[0], environ)
    if changes.allocator is not None:
        environ[ALLOCATOR_VARIABLE] = changes.allocator
    options = RecordOptions(parts_dir="", package_dir=str(PACKAGE_DIR), changes=changes, applies_only=True)
    return run_command(command, options, environ)


class ChangedRunError(MemtraceError):
    """A changed program failed; its processes may have left surveys that say why."""

    def __init__(self, error: MemtraceError, surveys: list[Any]) -> None:
        super().__init__(error.message, hint=error.hint, slug=error.slug)
        self.surveys = surveys


def surveys_in(folder: str) -> list[Any]:
    """Return what each process wrote; a file that is cut off is left out."""
    found = []
    for path in sorted(Path(folder).glob("*.json")):
        with contextlib.suppress(ValueError, OSError):
            if path.stat().st_size <= _MAX_SURVEY_BYTES:
                found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


@contextlib.contextmanager
def _survey_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="memtrace-fix-") as folder:
        yield folder


@contextlib.contextmanager
def _descriptor(log: Path) -> Iterator[int]:
    with log.open("wb") as file:
        yield file.fileno()


def last_line(log: Path) -> str:
    """Return the last line that names an exception, else the last one: some exceptions have many lines."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    named = [line for line in lines if _EXCEPTION.match(line)]
    return (named or lines)[-1][:300] if lines else "it printed nothing"
