"""The traces that an agent asks about: read and analysed once, kept until the files change or others are asked for."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from memtrace.errors import TraceReadError
from memtrace.schema.redaction import Redaction

if TYPE_CHECKING:
    from memtrace.analysis.results.report import Report
    from memtrace.store.trace import Trace

MAX_KEPT = 2
"""Traces in memory at a time: enough for a comparison."""

_Version = tuple[tuple[str, int, int], ...]
"""Name, time of last change and size of every file."""


@dataclass(slots=True)
class Loaded:
    """One run, and what was worked out about it."""

    trace: Trace
    reports: dict[int | None, Report] = field(default_factory=dict)
    """By the capacity that was asked for."""

    def report(self, capacity_bytes: int | None = None) -> Report:
        """Return the report of the run, for a device of this capacity if one is given."""
        from memtrace.analysis.report import analyze

        if capacity_bytes not in self.reports:
            self.reports[capacity_bytes] = analyze(self.trace, capacity_bytes=capacity_bytes)
        return self.reports[capacity_bytes]


class Traces:
    """Reads traces, only ever from the paths that are given. Not more than `MAX_KEPT` runs are kept."""

    def __init__(self, root: Path | None = None, redaction: Redaction = Redaction.NOTHING) -> None:
        """Read below a folder only, if one is given; `redaction` says what is left out of what was read."""
        self._redaction = redaction
        self._root = None if root is None else Path(os.path.realpath(root))
        self._kept: OrderedDict[tuple[str, ...], tuple[_Version, Loaded]] = OrderedDict()
        # A server may answer several questions at once, each in a thread of its own.
        self.lock = threading.Lock()

    def load(self, names: str | list[str]) -> Loaded:
        """Return the run in these files and folders.

        Raises:
            TraceReadError: nothing readable is there.
        """
        from memtrace.store.opening import reading_below

        given = [names] if isinstance(names, str) else names
        with reading_below(self._root):
            return self._load([self._existing(name) for name in given])

    def _load(self, paths: list[Path]) -> Loaded:
        from memtrace.store.reading.read import read_trace
        from memtrace.store.redaction.redact import redacted

        key, version = tuple(str(path.absolute()) for path in paths), _version(paths)
        known = self._kept.pop(key, None)
        if known is None or known[0] != version:
            while len(self._kept) >= MAX_KEPT:
                self._kept.popitem(last=False)
            known = version, Loaded(redacted(read_trace(paths), self._redaction))
        self._kept[key] = known
        return known[1]

    def _existing(self, name: str) -> Path:
        from memtrace.store.opening import is_within_reach

        # os.path takes a name that no file can have for one that is not there. Outside the root is not there either:
        # two answers would tell which files the machine has.
        path = Path(name)
        if name and os.path.exists(path) and is_within_reach(path):
            return path
        if self._root is None:
            hint = f"name a trace, a snapshot, a profile or a run folder; relative names start at {Path.cwd()}"
            raise TraceReadError(f"{name}: no such file or folder", hint=hint)
        raise TraceReadError(
            f"{name}: no such file or folder below {self._root}",
            hint=f"the server was started with --root; relative names start at {Path.cwd()}",
        )


def _version(paths: list[Path]) -> _Version:
    """Return what changes when a file does, or one in a folder."""
    found: list[tuple[str, int, int]] = []
    for path in paths:
        files = [path]
        if path.is_dir():
            files = [Path(folder) / name for folder, _, names in os.walk(path) for name in sorted(names)]
        for file in files:
            try:
                status = file.stat()
            except OSError:
                continue
            found.append((str(file), status.st_mtime_ns, status.st_size))
    return tuple(found)
