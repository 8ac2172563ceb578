"""Where a recording goes: the output, its folder of parts, and the checks made before the program is started.

One launcher writes one file, or a run folder with a file a rank when there are many. Several launchers of one run
(Slurm, MPI) share a run folder, in which each keeps its own folder of parts and writes its own ranks' files.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtrace.errors import OutputError
from memtrace.schema.records import PARTS_SUFFIX
from memtrace.store.opening import read_small
from memtrace.whole_files import is_replaceable

LAUNCHER_FILE = "launcher.json"
"""File in a folder of parts: who records, what is run, where it goes."""
MAX_PID = 2**31 - 1
"""The largest number that a process can have; what a file names may be any."""

_OUTER_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
_SPECIAL_STEPS = 0xFFFFFFF0
"""Slurm numbers its batch, extern and interactive steps from here: each is one task, and no parallel run."""
_MAX_LAUNCHER_BYTES = 16 << 20
"""Several times what a system takes as a command line."""
_STALE_AFTER_S = 600.0
"""Parts of another host's recording that have not changed for so long may be replaced with --force."""
_TRACE_NAME = re.compile(r"(rank|process)-.*\.json(\.gz)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where one launcher writes."""

    path: Path
    """The trace file or the run folder."""
    parts_dir: Path
    """Folder of parts of this launcher, absolute."""
    launcher_rank: int | None
    """Rank of this launcher among those that share the run folder; None if it is alone."""
    force: bool
    """Whether an earlier output is replaced."""


def plan_output(path: Path | None, command: Sequence[str], *, force: bool, environ: Mapping[str, str]) -> Output:
    """Return where a recording of this command goes, and make its folder of parts.

    Raises:
        OutputError: the output exists and `force` is not given, or it cannot be written.
    """
    rank = outer_rank(environ)
    if path is None and rank is None:
        return _claim_default(command, force=force)
    if path is None:
        path = default_path(command, is_folder=True)
    if rank is None:
        parts_dir = path.with_name(path.name + PARTS_SUFFIX).absolute()
        check_free(path, force=force)
    else:
        parts_dir = (path / f"launcher-{rank:05d}{PARTS_SUFFIX}").absolute()
        _check_shared(path, rank, force=force)
    output = Output(path=path, parts_dir=parts_dir, launcher_rank=rank, force=force)
    prepare_parts(output)
    return output


def _claim_default(command: Sequence[str], *, force: bool) -> Output:
    """Take the first free name for this process alone: of several that ask at the same moment, one makes the folder."""
    while True:
        path = default_path(command)
        parts_dir = path.with_name(path.name + PARTS_SUFFIX).absolute()
        output = Output(path=path, parts_dir=parts_dir, launcher_rank=None, force=force)
        with _as_unwritable(path):
            _check_writable(path)
            try:
                parts_dir.mkdir(mode=0o700)
            except FileExistsError:
                # Another process was quicker, unless there is no free name at all.
                if path == default_path(command):
                    raise _parts_in_the_way(output) from None
                continue
        if not _exists(path):
            return output
        # A recording of that name has ended between the two looks.
        parts_dir.rmdir()


def outer_rank(environ: Mapping[str, str]) -> int | None:
    """Return the rank that srun or mpirun gave this launcher; None where nothing started several of it."""
    for name in _OUTER_RANKS:
        text = environ.get(name, "")
        if text.isascii() and text.isdigit() and not (name == "SLURM_PROCID" and _is_single_task(environ)):
            return int(text)
    return None


def _is_single_task(environ: Mapping[str, str]) -> bool:
    """Whether Slurm runs one task here: batch scripts and interactive shells have SLURM_PROCID=0 as well."""
    if "SLURM_STEP_NUM_TASKS" in environ:
        return environ["SLURM_STEP_NUM_TASKS"] == "1"
    step = environ.get("SLURM_STEP_ID", "")
    is_no_step = "SLURM_JOB_ID" in environ and not step
    return is_no_step or (step.isdigit() and int(step) >= _SPECIAL_STEPS) or environ.get("SLURM_NTASKS") == "1"


def default_path(command: Sequence[str], *, is_folder: bool = False, folder: Path = Path()) -> Path:
    """Return a name made from the script: `memtrace-train.json`, or with a number if that is taken."""
    name = f"memtrace-{script_name(command)}"
    if is_folder:
        return folder / name  # the same for every launcher, so without a number
    candidates = (folder / f"{name}{number}.json" for number in ("", *(f"-{one}" for one in range(2, 10_000))))
    taken = (one for one in candidates if not _exists(one) and not _exists(one.with_name(one.name + PARTS_SUFFIX)))
    return next(taken, folder / f"{name}.json")


def merged_path(folder: Path) -> Path:
    """Return where a folder is assembled to if no name is given.

    >>> str(merged_path(Path("a/trace.json.parts"))), str(merged_path(Path("run")))
    ('a/trace.json', 'run.json.gz')
    """
    folder = folder if folder.name else folder.absolute()
    if folder.name.endswith(PARTS_SUFFIX) and folder.name != PARTS_SUFFIX:
        return folder.with_name(folder.name.removesuffix(PARTS_SUFFIX))
    return folder.with_name(f"{folder.name}.json.gz")


def script_name(command: Sequence[str]) -> str:
    """Return what a command runs, as part of a file name.

    >>> script_name(["torchrun", "--nproc-per-node", "2", "src/train.py", "--lr", "1"])
    'train'
    >>> script_name(["python", "-m", "pkg.train"]), script_name(["./run.sh"])
    ('pkg.train', 'run')
    """
    words = list(command)
    script = next((Path(word).stem for word in words if word.endswith(".py")), None)
    if script is None and "-m" in words[:-1]:
        script = words[words.index("-m") + 1]
    if script is None:
        script = Path(words[0]).stem
    return re.sub(r"[^\w.-]+", "_", script).strip("._-") or "run"


def check_free(path: Path, *, force: bool) -> None:
    """Check that a trace may be written under this name.

    Raises:
        OutputError: something is there.
    """
    if os.path.isdir(path):
        names = os.listdir(path)
        if any(not _TRACE_NAME.fullmatch(name) for name in names):
            raise OutputError(f"{path}: is a folder with other things in it", hint="name a file", slug="output-exists")
        if not names or force:
            return
    elif not is_replaceable(path):
        message = f"{path}: is no regular file, and a recording needs a folder beside its output"
        raise OutputError(message, hint="name a file", slug="output-unwritable")
    elif not _exists(path) or force:
        return
    raise OutputError(f"{path}: exists already", hint="choose another name, or add --force", slug="output-exists")


def _check_shared(folder: Path, rank: int, *, force: bool) -> None:
    """Check a run folder for this launcher only: others may have begun before it, or ended already."""
    if _exists(folder) and not os.path.isdir(folder):
        message = f"{folder}: is a file, and several launchers need a folder"
        raise OutputError(message, hint="choose another name", slug="output-exists")
    own = folder / rank_file_name(rank)
    if _exists(own) and not force:
        raise OutputError(f"{own}: exists already", hint="choose another name, or add --force", slug="output-exists")


def rank_file_name(rank: int) -> str:
    """Return the name of a rank's trace in a run folder."""
    return f"rank-{rank:05d}.json.gz"


def prepare_parts(output: Output) -> None:
    """Make the folder of parts, and check that the output can be written beside it.

    Raises:
        OutputError: parts of another recording are there, or the folder is not writable.
    """
    parts_dir = output.parts_dir
    with _as_unwritable(output.path):
        if os.path.isdir(parts_dir) and any(parts_dir.iterdir()):
            if not output.force or _is_at_work(parts_dir):
                raise _parts_in_the_way(output)
            shutil.rmtree(parts_dir)
        # What torch writes into it natively has the rights of any new file.
        parts_dir.mkdir(mode=0o700, parents=output.launcher_rank is not None, exist_ok=True)
        _check_writable(output.path)


def _check_writable(path: Path) -> None:
    if not os.access(path.absolute().parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def _as_unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror or error}"
        raise OutputError(message, hint="choose a folder that exists and is yours", slug="output-unwritable") from None


def _is_at_work(parts_dir: Path) -> bool:
    """Return whether a recording must be taken to write here. One of another host is, as long as its files change."""
    launcher = read_launcher(parts_dir)
    if not is_running(launcher):
        return False
    if launcher["host"] == socket.gethostname():
        return True
    newest = max((path.lstat().st_mtime for path in parts_dir.iterdir()), default=0.0)
    return time.time() - newest < _STALE_AFTER_S


def _parts_in_the_way(output: Output) -> OutputError:
    launcher = read_launcher(output.parts_dir)
    if is_running(launcher) and (not output.force or _is_at_work(output.parts_dir)):
        message = f"{output.path}: another recording is writing it (process {launcher['pid']})"
        return OutputError(message, hint="choose another name", slug="output-exists")
    return OutputError(
        f"{output.parts_dir}: parts of an earlier recording are there",
        hint=f"keep them with `memtrace merge {output.parts_dir} -o NAME`, or drop them with --force",
        slug="parts-exist",
    )


def write_launcher(output: Output, facts: Mapping[str, Any]) -> None:
    """Write who records into the folder of parts, for `trigger` and for a later `merge`."""
    pid = os.getpid()
    content = {"pid": pid, "host": socket.gethostname(), "start_ticks": _start_ticks(pid), **facts}
    try:
        write_json(output.parts_dir / LAUNCHER_FILE, content)
    except OSError as error:
        message = f"{output.parts_dir}: cannot be written: {error.strerror or error}"
        raise OutputError(message, slug="output-unwritable") from None


def read_launcher(parts_dir: Path) -> dict[str, Any]:
    """Return what the launcher wrote; empty if it left nothing that can be read."""
    try:
        content = json.loads(read_small(parts_dir / LAUNCHER_FILE, max_bytes=_MAX_LAUNCHER_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def is_running(launcher: Mapping[str, Any]) -> bool:
    """Return whether a launcher still runs; on another host it is taken to."""
    pid = launcher.get("pid")
    if not isinstance(pid, int) or not 0 < pid <= MAX_PID:
        return False
    if launcher.get("host") != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # The number may be another process's by now: in a container that was started anew it mostly is.
    began, found = launcher.get("start_ticks"), _start_ticks(pid)
    return began is None or found is None or began == found


def _start_ticks(pid: int) -> int | None:
    """Return when a process of this host was started, in ticks since boot; None where the system does not tell."""
    try:
        # Behind the name, which may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small file so that a reader sees all of it or nothing."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # Readable by its owner alone: it holds the command line. A name left by a process of the same number is taken over.
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(content, sort_keys=True) + "\n")
    os.replace(unfinished, path)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)
