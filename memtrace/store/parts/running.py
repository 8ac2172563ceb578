"""What a process that is being recorded has written so far. Each look reads only what came since the one before.

The main part grows by one line a step; of steps only the last few are looked into, so that following a long run costs
what its newest lines cost. Chunks are not opened.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

from memtrace.schema import records
from memtrace.schema.records import PART_SUFFIX, Record
from memtrace.schema.status import STATUS_BYTES, STATUS_SUFFIX
from memtrace.store.opening import open_regular
from memtrace.store.parts.lines import record_of

_MAX_READ = 1 << 26
"""Most bytes of the main part for one look; the next look goes on there."""
_NUM_STEPS = 8
_STEP_LINE = b'{"k":"%s"' % records.STEP.encode()


class RunningPart:
    """Follows the files of one process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        """What its files begin with."""
        self._main = folder / f"{name}{PART_SUFFIX}"
        self._status = folder / f"{name}{STATUS_SUFFIX}"
        self._offset = 0
        self.header: dict[str, Any] = {}
        """Facts of the process; a missing one is not recorded."""
        self.devices: dict[str, Record] = {}
        """By name."""
        self.steps: deque[Record] = deque(maxlen=_NUM_STEPS)
        """The last steps that ended."""
        self.warnings: dict[tuple[str, str], None] = {}
        """Short name and message of each."""
        self.status: Record = {}
        """See `schema/status.py`."""
        self.has_ended = False
        """Whether the recording of the process ended in order."""
        self.written_ns: int | None = None
        """Unix time at which one of its files last changed."""

    def look(self) -> None:
        """Take in what is new. Files that are gone (the recording was assembled) are no error."""
        times = [self._read_main(), self._read_status()]
        self.written_ns = max((time for time in times if time is not None), default=self.written_ns)

    def _read_main(self) -> int | None:
        try:
            with open_regular(self._main) as file:
                file.seek(self._offset)
                content = file.read(_MAX_READ)
            changed_ns = self._main.stat().st_mtime_ns
        except OSError:
            return None
        # What follows the last newline is still being written.
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = whole.splitlines()
        steps = [line for line in lines if line.startswith(_STEP_LINE)]
        for line in (*(line for line in lines if not line.startswith(_STEP_LINE)), *steps[-_NUM_STEPS:]):
            record = record_of(line)
            if record is not None:
                self._take(record)
        return changed_ns

    def _take(self, record: Record) -> None:
        kind = record["k"]
        if kind in (records.HEADER, records.FACTS):
            self.header |= record
        elif kind == records.DEVICE:
            self.devices[str(record.get("name"))] = record
        elif kind in (records.WARNING, records.LOST):
            self.warnings[str(record.get("slug", "warning")), str(record.get("message", ""))] = None
        elif kind == records.STEP and record.get("end_ns") is not None:
            self.steps.append(record)
        elif kind == records.END:
            self.has_ended = True

    def _read_status(self) -> int | None:
        try:
            with open_regular(self._status) as file:
                content = file.read(STATUS_BYTES)
            changed_ns = self._status.stat().st_mtime_ns
            status = json.loads(content)
        except (OSError, ValueError, RecursionError):
            # Not there yet, or read while it was written: the one before still says something.
            return None
        if isinstance(status, dict):
            self.status = status
        return changed_ns
