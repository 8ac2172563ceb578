"""What a search of `memtrace fit` has measured so far: a file beside its output, so that it can go on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memtrace.forecast.fitting.results import Measured

SUFFIX = ".state"
FORMAT = "memtrace-fit-state"
MAX_BYTES = 64 << 20
"""A search of a few dozen runs takes some kilobytes."""


class State:
    """The runs of a search, written after each, whole or not at all."""

    def __init__(self, path: Path, search: dict[str, Any], runs: list[tuple[int, Measured]]) -> None:
        self._path = path
        self._search = search
        self.runs = runs
        """Micro-batch and measurement, in the order of the runs."""

    @classmethod
    def open(cls, output: Path, search: dict[str, Any], *, force: bool) -> State:
        """Return what was measured for an output; nothing, if nothing is there or `force` drops it.

        Raises:
            MemtraceError: it is of another search, or cannot be read.
        """
        from memtrace.errors import MemtraceError
        from memtrace.store.opening import read_small

        path = output.with_name(output.name + SUFFIX)
        if force:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise MemtraceError(f"{path} cannot be removed: {error.strerror or error}") from None
        if not os.path.lexists(path):
            return cls(path, search, [])
        hint = "finish it with its own command, choose another -o, or start over with --force"
        try:
            content = json.loads(read_small(path, max_bytes=MAX_BYTES).decode("utf-8"))
            runs = [(_size(one["micro_batch"]), _measured(one)) for one in content["runs"]]
            found = dict(content["search"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise MemtraceError(f"{path} is no state of a search: {type(error).__name__}", hint=hint) from None
        if found != search:
            different = ", ".join(name for name in search if found.get(name) != search[name])
            raise MemtraceError(f"{path} is of another search: {different} differ", hint=hint)
        return cls(path, search, runs)

    def add(self, size: int, measured: Measured) -> None:
        """Add a run and write all of them.

        Raises:
            OutputError: the file cannot be written.
        """
        from memtrace.report.output import write_text

        self.runs.append((size, measured))
        runs = [{"micro_batch": size, **asdict(one)} for size, one in self.runs]
        content = {"format": FORMAT, "version": 1, "search": self._search, "runs": runs}
        write_text(json.dumps(content, indent=1) + "\n", self._path, force=True)

    def remove(self) -> None:
        """Remove the file: the answer is written."""
        self._path.unlink(missing_ok=True)


def _size(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("not a micro-batch")
    return value


def _measured(content: dict[str, Any]) -> Measured:
    """Return a measurement as it was written; a ValueError for anything else."""
    from memtrace.forecast.fitting.results import Measured

    names = ("peak_bytes", "needed_bytes", "first_step_peak_bytes", "device_bytes")
    values = {name: content[name] for name in names}
    if any(value is not None and (type(value) is not int or value < 0) for value in values.values()):
        raise ValueError("not bytes")
    is_out = content["out_of_memory"]
    if type(is_out) is not bool or (values["needed_bytes"] is None) != is_out:
        raise ValueError("not a measurement")
    return Measured(**values, out_of_memory=is_out)
