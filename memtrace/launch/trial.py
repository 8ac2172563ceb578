"""A recorded run that is ended once it has made a few steps: `memtrace record` in a process of its own, and a watch.

In: the command to record, where the trace goes, a file for its output, how many steps. Out: `Trial`. What the run
wrote until it was ended is assembled as that of any run that is ended from outside.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from memtrace.errors import MemtraceError
from memtrace.schema.records import CHUNK_INFIX, PART_SUFFIX, PARTS_SUFFIX, Record
from memtrace.store.parts.main_part import read_main

_POLL_S = 0.1
_OTHER_RANKS_S = 5.0
"""How long other ranks may take to end the step that the first of them has ended."""
_GRACE_S = 60.0
"""How long a program may take to end, and its trace to be assembled, before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How a run ended."""

    status: int
    """Exit status of `memtrace record`, which is that of the program; negative: a signal."""
    was_ended: bool
    """Whether it was ended here because it had made its steps."""
    output: str
    """The end of what the program printed."""


def run_trial(
    command: Sequence[str], trace: Path, log: Path, *, num_steps: int, on_step: Callable[[int], None]
) -> Trial:
    """Run a command until it has made `num_steps` steps of its optimizer; `on_step` is told how many, as they come.

    Steps that a gradient scaler skips do not count. The program is asked to end (SIGTERM), and killed if it does not.
    """
    own = [sys.executable, "-m", "memtrace", "record", "--force", "--steps", "1-", "--stacks", "none"]
    with log.open("wb") as file, _ended(_start([*own, "-o", str(trace), "--", *command], file)) as process:
        was_ended = _watch(process, trace.with_name(trace.name + PARTS_SUFFIX), num_steps, on_step)
        if was_ended:
            process.terminate()
        try:
            status = process.wait(timeout=_GRACE_S if was_ended else None)
        except subprocess.TimeoutExpired:
            raise MemtraceError(
                f"the program did not end within {_GRACE_S:.0f} s of being asked to",
                hint="it catches SIGTERM, or takes long to end: let it end by itself after a few steps",
            ) from None
    return Trial(status=status, was_ended=was_ended, output=_tail(log))


def _start(command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    # In a session of its own: all that it starts can be ended together, and Ctrl-C reaches it through us only.
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Leave no process of the run behind, however this one goes on: also where it is told to end itself."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {one: signal.signal(one, leave) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield process
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _watch(process: subprocess.Popen[bytes], parts: Path, num_steps: int, on_step: Callable[[int], None]) -> bool:
    """Wait until all ranks have made their steps, or the run ends; return whether they have."""
    shown, deadline = 0, float("inf")
    while process.poll() is None:
        time.sleep(_POLL_S)
        made = [count for count in _steps_made(parts) if count]
        if made and max(made) > shown:
            shown = max(made)
            on_step(min(shown, num_steps))
        if shown >= num_steps:
            deadline = min(deadline, time.monotonic() + _OTHER_RANKS_S)
            if min(made, default=0) >= num_steps or time.monotonic() > deadline:
                return True
    return False


def _steps_made(parts: Path) -> list[int]:
    """Return for each process of the run the steps that ended and were not skipped."""
    main = (path for path in sorted(parts.glob(f"*{PART_SUFFIX}")) if CHUNK_INFIX not in path.name)
    return [sum(map(_counts, read_main(path).steps)) for path in main]


def _counts(step: Record) -> bool:
    return bool(step.get("step") and step.get("end_ns") and not step.get("skipped"))


def _tail(log: Path, num_bytes: int = 20_000) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - num_bytes))
        return file.read().decode("utf-8", "replace")
