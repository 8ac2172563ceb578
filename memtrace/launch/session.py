"""One recording from end to end: plan the output, run the program, gather what it left, say what came of it.

Whatever fails after the program was started costs the recording, never the program's exit status.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from memtrace.errors import MemtraceError
from memtrace.launch.command import PACKAGE_DIR, resolve, run_command
from memtrace.launch.host_memory import possible_kill, read_host_memory
from memtrace.launch.output import Output, plan_output, write_launcher
from memtrace.launch.watch_library import watch_library
from memtrace.schema.options import RecordOptions
from memtrace.schema.secret_arguments import masked_arguments
from memtrace.units import format_bytes

Say = Callable[[str], None]
Show = Callable[[Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What to run, and where the recording of it goes."""

    command: tuple[str, ...]
    path: Path | None
    """The output; None for a name made from the script."""
    force: bool
    """Whether an earlier output is replaced."""
    options: RecordOptions
    """What is recorded; its folders and process id are filled in here."""


def record(recording: Recording, say: Say, *, show: Show | None = None) -> int:
    """Run a program, record it, and return its exit status (negative: a signal); `say` is given lines for the user.

    `show` is given the trace at the end, to tell what came of it; it may fail, and nothing else does for it.

    Raises:
        RecordError, OutputError: the program was not started.
    """
    environ = dict(os.environ)
    resolve(recording.command[0], environ)
    output = plan_output(recording.path, recording.command, force=recording.force, environ=environ)
    options = replace(
        recording.options,
        parts_dir=str(output.parts_dir),
        launcher_pid=os.getpid(),
        package_dir=str(PACKAGE_DIR),
        watch_library=watch_library(),
    )
    write_launcher(output, {"header": _early_header(recording.command, options)})
    before = read_host_memory()
    try:
        status = run_command(recording.command, options, environ)
    except BaseException:
        shutil.rmtree(output.parts_dir, ignore_errors=True)
        raise
    killed = possible_kill(before, read_host_memory()) if status else None
    written = _finish(recording.command, options, output, status, killed, say)
    if written is not None:
        if show is not None and output.launcher_rank is None:
            with suppress(Exception, KeyboardInterrupt):
                show(written)
        say(f"Next: {_own_command('report', written)}")
    return status


def _early_header(command: Sequence[str], options: RecordOptions) -> dict[str, object]:
    """Return the header for a `merge` by hand, in case this process does not live to gather."""
    return {
        "command": None if options.redact else masked_arguments(command),
        "redacted": options.redact,
        "exit_status": None,
    }


def _finish(
    command: Sequence[str], options: RecordOptions, output: Output, status: int, killed: str | None, say: Say
) -> Path | None:
    """Gather, and say what was written or why nothing was; return what was written."""
    # Only now: pandas and numpy beside the program would take memory from what is measured.
    from memtrace.launch.gather import gather, trace_header

    try:
        written = gather(output, trace_header(command, options, status), killed=killed)
    except (MemtraceError, OSError, MemoryError, KeyboardInterrupt) as error:
        reason = error.message if isinstance(error, MemtraceError) else f"{type(error).__name__} {error}".rstrip()
        say(f"memtrace: the recording could not be assembled: {reason}")
        say(f"The parts are kept: {_own_command('merge', output.parts_dir, '-o', 'NAME')}")
        return None
    if written is None:
        say("memtrace: nothing was recorded: no Python process that imported torch was seen.")
        say("(`python -I` and `-E`, and programs that clear PYTHONPATH, cannot be seen: use memtrace.start() there.)")
        return None
    for path in written.other_names:
        say(f"memtrace: the name of this rank's file was taken: {path}")
    if killed is not None and not written.is_complete:
        say(f"memtrace: {killed}")
    processes = f"{written.num_processes} process{'es' if written.num_processes > 1 else ''}"
    ending = "" if written.is_complete else ", incomplete: the program did not end in order"
    say(f"Wrote {written.path} ({format_bytes(written.num_bytes)}, {processes}{ending})")
    if written.num_unrecorded:
        some = "process" if written.num_unrecorded == 1 else "processes"
        say(f"memtrace: {written.num_unrecorded} forked {some} trained and left no record (spawn and forkserver do).")
    return written.path


def _own_command(*words: str | Path) -> str:
    """Return a memtrace command that can be typed here."""
    here = Path(sys.argv[0])
    found = shutil.which("memtrace")
    is_on_path = found is not None and here.name == "memtrace" and Path(found).resolve() == here.resolve()
    program = (
        ["memtrace"] if is_on_path else [str(here)] if here.name == "memtrace" else [sys.executable, "-m", "memtrace"]
    )
    return shlex.join([*program, *map(str, words)])
