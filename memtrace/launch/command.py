"""Running the program to record: its environment, its process, its end.

In: the command as it would be typed without memtrace. The program gets the same streams, working folder, process group
and open files; PYTHONPATH and one variable are all that it can notice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from memtrace.errors import RecordError
from memtrace.launch.signals import run_and_forward
from memtrace.schema.options import OPTIONS_VARIABLE, RecordOptions

PACKAGE_DIR = Path(__file__).resolve().parent.parent.parent
"""Folder that holds the package `memtrace`."""
BOOTSTRAP_DIR = PACKAGE_DIR / "memtrace" / "hooks" / "bootstrap"
"""Folder with the `sitecustomize` that starts a recording."""

EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE = 127, 126
"""What a shell returns for a command that it cannot run."""


def run_command(
    command: Sequence[str],
    options: RecordOptions,
    environ: Mapping[str, str],
    *,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: Path | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> int:
    """Run a command so that its Python processes are recorded; return its exit status (negative: a signal).

    `stdout` and `stderr` are file descriptors for its output, which is ours where they are not given, and `cwd` the
    folder that it starts in. `meanwhile` is called about once a second as long as it runs.

    Raises:
        RecordError: there is no such command, or it cannot be run.
    """
    executable = resolve(command[0], environ)
    environment = build_environment(options, environ)

    def start(before_exec: Callable[[], None]) -> subprocess.Popen[bytes]:
        # The bare program would inherit our open files as well (a shell's <(…), a make jobserver); ours are not
        # inheritable. Nothing else runs in this process, so the function before exec is safe.
        return subprocess.Popen(
            list(command),
            executable=executable,
            env=environment,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            close_fds=False,
            preexec_fn=before_exec,
        )

    try:
        return run_and_forward(start, meanwhile=meanwhile)
    except OSError as error:
        raise _cannot_run(command[0], error) from None


def build_environment(options: RecordOptions, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the program's environment: as it was, with the options and with the bootstrap first on PYTHONPATH."""
    # An empty piece would mean the working folder, so there must be none that was not there.
    path = [str(BOOTSTRAP_DIR), *([environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else [])]
    return {**environ, "PYTHONPATH": os.pathsep.join(path), OPTIONS_VARIABLE: options.to_json()}


def resolve(program: str, environ: Mapping[str, str]) -> str:
    """Return the file that a shell would run for this name.

    Raises:
        RecordError: there is none; the exit code is a shell's.
    """
    found = shutil.which(program, path=environ.get("PATH", os.defpath))
    if found is not None:
        return found
    hint = "the command after -- is what you would type without memtrace: memtrace record -- python train.py"
    if program.endswith(".py"):
        hint = f"a script needs its Python: memtrace record -- python {program}"
    if os.path.exists(program) and os.sep in program:
        return _refuse(f"{program}: cannot be run: Permission denied", hint, EXIT_NOT_EXECUTABLE)
    return _refuse(f"{program}: command not found", hint, EXIT_NOT_FOUND)


def _refuse(message: str, hint: str, exit_code: int) -> str:
    error = RecordError(message, hint=hint, slug="command-not-found")
    error.exit_code = exit_code
    raise error


def _cannot_run(program: str, problem: OSError) -> RecordError:
    error = RecordError(f"{program}: cannot be run: {problem.strerror or problem}", slug="command-not-found")
    error.exit_code = EXIT_NOT_EXECUTABLE
    return error
