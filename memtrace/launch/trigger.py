"""Asking a running recording for its next steps, through a file in its folder of parts."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from memtrace.errors import RecordError
from memtrace.launch.output import LAUNCHER_FILE, MAX_PID, is_running, read_launcher, write_json
from memtrace.schema.options import OPTIONS_VARIABLE
from memtrace.schema.records import PARTS_SUFFIX, TRIGGER_FILE


def trigger(run: str, num_steps: int) -> int:
    """Ask the recording of an output, a folder of parts or a process id for its next steps; return how many launchers.

    Raises:
        RecordError: none is running there.
    """
    folders = find_parts(run)
    running = [folder for folder in folders if is_running(read_launcher(folder))]
    if not running:
        reason = "its recording has ended" if folders else "no recording is there"
        raise RecordError(f"{run}: {reason}", hint="name the output (-o), its .parts folder or a process id")
    for folder in running:
        try:
            write_json(folder / TRIGGER_FILE, {"steps": num_steps, "id": secrets.token_hex(4)})
        except OSError as error:
            raise RecordError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return len(running)


def find_parts(run: str) -> list[Path]:
    """Return the folders of parts of an output, of a run folder, or of a process and those below it."""
    return [folder for folder in candidate_folders(run) if os.path.isfile(folder / LAUNCHER_FILE)]


def candidate_folders(run: str) -> list[Path]:
    """Return the folders that may be the parts of an output, of a run folder, or of a process and those below it.

    `os.path` asks here, which takes a name that no file can have, or may not be looked up, for one that is not there.
    """
    path = Path(run)
    beside = path.with_name(path.name + PARTS_SUFFIX) if path.name else path
    candidates = [path, beside, *(sorted(path.glob(f"*{PARTS_SUFFIX}")) if os.path.isdir(path) else [])]
    if run.isascii() and run.isdigit() and not any(map(os.path.lexists, candidates)):
        is_number = len(run) <= len(str(MAX_PID)) and int(run) <= MAX_PID
        return _parts_of_process(int(run)) if is_number else []
    return [folder for folder in candidates if os.path.isdir(folder)]


def _parts_of_process(pid: int) -> list[Path]:
    """Return the folder named in the environment of a process or of one below it (the launcher has none itself)."""
    todo = [pid]
    while todo:
        current = todo.pop()
        folder = _parts_in_environment(current)
        if folder is not None:
            return [folder]
        todo += _children(current)
    return []


def _parts_in_environment(pid: int) -> Path | None:
    start = f"{OPTIONS_VARIABLE}=".encode()
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        value = next(entry.removeprefix(start) for entry in entries if entry.startswith(start))
        return Path(json.loads(value)["parts_dir"])
    except (OSError, StopIteration, ValueError, KeyError, TypeError, RecursionError):
        return None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    except OSError:
        return found
    return found
