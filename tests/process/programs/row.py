"""A row of the table: a program, a way to run it, and all that it can be told by."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from memtrace.launch.command import PACKAGE_DIR, build_environment
from memtrace.launch.watch_library import watch_library
from memtrace.schema.options import RecordOptions
from tests.process.conftest import TRAIN
from tests.warm.server import ENDS_IN_FULL
from tests.warm.start import warm_python

LIMIT_S = 180
PARTS = "t.json.parts"
OF_THE_MOMENT = re.compile(
    r"\b0x[0-9a-f]{6,}|\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \d+:\d+|^W\d{4} [\d:.]+ \d+ \S+ \[\d+/\d+\]", re.MULTILINE
)
"""Addresses, and what torch's logs say of time, process and the number of a compiled frame, ours among them."""
STATE = ("t.json", "__pycache__")
"""What a recording leaves, and what Python keeps of modules: starts of names of files that are not the program's."""


@dataclass(frozen=True)
class Row:
    """A program, how it is run, and how much of it a recording may lose.

    The program is run by the Python that has torch already, and recorded as the launcher sets it up, without the
    launcher: what is compared is what the program's own process does.
    """

    name: str
    source: str
    """What follows a model and a function `train`."""
    words: tuple[str, ...] = ("train.py",)
    """What is given to Python."""
    stdin: str = ""
    more_files: dict[str, str] = field(default_factory=dict, hash=False)
    is_cold: bool = False
    """Whether a Python is started for it: for what happens at its start."""
    ends_in_full: bool = False
    """Whether what Python does at its end matters: static destructors, the order of `__del__`."""
    options: tuple[tuple[str, object], ...] = ()
    """Fields of `RecordOptions`."""
    says: str | None = None
    """How the one line starts, behind `memtrace: `, that the recording may add to stderr."""
    num_processes: int | None = 1
    """Processes that are recorded; None where that is the program's affair."""
    trains: bool = True
    """Whether the first of them makes a step."""


@dataclass(frozen=True)
class Ended:
    """All that a program can be told by."""

    status: int
    stdout: str
    stderr: str
    files: dict[str, tuple[str, bytes]]
    """Mode and content by name."""


def run(folder: Path, row: Row, *, is_recorded: bool, launcher: tuple[str, ...] = ()) -> Ended:
    """Run a program in a folder of its own, recorded by a launcher or as one would; return how it ended."""
    folder.mkdir()
    for name, text in {"train.py": TRAIN + row.source, **row.more_files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    environ = {**os.environ, "OMP_NUM_THREADS": "1"} | ({ENDS_IN_FULL: "1"} if row.ends_in_full else {})
    if is_recorded and not launcher:
        (folder / PARTS).mkdir()
        fields = {"watch_library": watch_library(), **dict(row.options)}
        options = RecordOptions(parts_dir=str(folder / PARTS), package_dir=str(PACKAGE_DIR), **fields)  # type: ignore[arg-type]
        environ = build_environment(options, environ)
    return ended([*launcher, sys.executable if row.is_cold else warm_python(), *row.words], folder, environ, row.stdin)


def ended(command: list[str], folder: Path, environ: dict[str, str], stdin: str = "") -> Ended:
    """Run a command in a folder and return how it ended. A hang is a failure like any other."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(stdin.encode(), timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        pytest.fail(f"did not end within {LIMIT_S} s: {stdout.decode()}\n{stderr.decode()}")
    texts = (OF_THE_MOMENT.sub("MOMENT", text.decode().replace(str(folder), "FOLDER")) for text in (stdout, stderr))
    return Ended(process.returncode, *texts, files_in(folder))


def files_in(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Return what a program left, without the recording and what Python keeps of its modules."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not any(part.startswith(STATE) for part in path.relative_to(folder).parts):
            found[name] = (stat.filemode(path.stat().st_mode), path.read_bytes())
    return found


def without_one_line(text: str, start: str) -> str:
    """Return a text without the first line that starts so."""
    lines = text.splitlines(keepends=True)
    ours = next((number for number, line in enumerate(lines) if line.startswith(start)), len(lines))
    return "".join(lines[:ours] + lines[ours + 1 :])
