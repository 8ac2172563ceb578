"""Says what a recorded process does just now, in one small file that is written over in place (`schema/status.py`).

A phase takes one write of a thousand bytes into the page cache, some microseconds, so that a rank that hangs is seen
in the phase in which it hangs. What costs more, asking the allocator and adding up owners, is done at step ends, as
often as takes a hundredth of the time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from memtrace.hooks.failure.meant_for_program import pass_on
from memtrace.hooks.parts.as_imported import system
from memtrace.hooks.parts.own_file import OwnFile
from memtrace.hooks.parts.owner_rows import Sweep
from memtrace.schema.names import Phase
from memtrace.schema.status import STATUS_BYTES, STATUS_SUFFIX

_PAUSE_FACTOR = 100
"""After measuring, so many times as long as it took nothing is measured."""
# An optimizer that steps inside backward changes the phase once a parameter.
_MAX_PHASES_A_STEP = 64
_BLANK = b" " * (STATUS_BYTES - 1) + b"\n"


class Status:
    """Writes the status of the process that made it. After the first failure, and in a forked child, nothing."""

    def __init__(
        self,
        parts_dir: str,
        name: str,
        *,
        levels: Callable[[], dict[str, Any]],
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Prepare, without writing; `levels` asks the allocator, `clock` gives ns."""
        self._path = os.path.join(parts_dir, name + STATUS_SUFFIX)
        self._levels = levels
        self._pid = system.getpid()
        self._file: OwnFile | None = None
        self._broken = False
        self._now: dict[str, Any] = {"step": 0, "phase": str(Phase.OTHER), "since_ns": None, "ended_step": None}
        self._measured: dict[str, Any] = {}
        self._measured_line = b"}"
        """What was measured, encoded once and not with each phase, and the end of the object."""
        # Room that is used again: whatever asks for so much lets the C library first tidy up after all that the program
        # has freed since, which takes a millisecond.
        self._line = memoryview(bytearray(STATUS_BYTES))
        self._clock = clock
        self._resume_ns = 0
        self._num_phases = 0

    def phase(self, phase: Phase, now_ns: int) -> None:
        """Note that another phase runs."""
        self._num_phases += 1
        if self._num_phases <= _MAX_PHASES_A_STEP:
            self._now |= {"phase": str(phase), "since_ns": now_ns}
            self._write()

    def step_ended(self, step: int, owned: Sweep | None, now_ns: int) -> None:
        """Note that a step has ended, with its owners if somebody looked."""
        self._num_phases = 0
        self._now |= {"step": step + 1, "phase": str(Phase.OTHER), "since_ns": now_ns, "ended_step": step}
        if self._clock() >= self._resume_ns:
            self._measure(step, owned)
        self._write()

    def _measure(self, step: int, owned: Sweep | None) -> None:
        began_ns = self._clock()
        try:
            levels = self._levels()
        except Exception as error:
            pass_on(error)
            # A step must end whatever an allocator says when it is asked; it is not asked again.
            self._resume_ns = sys.maxsize
            return
        self._measured |= {"measured_step": step, **levels}
        if owned is not None:
            by_category = owned.bytes_by_category(self._measured.get("device"))
            self._measured |= {"categories_step": step, "by_category": by_category}
        self._measured_line = b"," + _encoded(self._measured)[1:]
        ended_ns = self._clock()
        self._resume_ns = ended_ns + _PAUSE_FACTOR * (ended_ns - began_ns)

    def close(self) -> None:
        """Close the file; it stays for whoever reads it last."""
        if self._file is not None and system.getpid() == self._pid:
            self._broken = True
            self._file.close()
            self._file = None

    def _write(self) -> None:
        if self._broken or system.getpid() != self._pid:
            return
        line = _encoded(self._now)[:-1] + self._measured_line
        if len(line) >= STATUS_BYTES:
            return
        try:
            if self._file is None:
                self._file = OwnFile(self._path)
            self._line[:] = _BLANK
            self._line[: len(line)] = line
            self._file.write_over(self._line)
        except OSError as error:
            pass_on(error)
            # The recording itself says that its folder cannot be written.
            self._broken = True


# `json.dumps` would make an encoder for each call.
_encode = json.JSONEncoder(separators=(",", ":")).encode


def _encoded(fields: dict[str, Any]) -> bytes:
    return _encode(fields).encode()
