"""One prediction from end to end: run the program on a GPU that is not there, and read what it left.

In: the command as it would be typed, and the GPU. Out: the trace, before the allocator's part of it is known.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from memtrace.errors import RecordError
from memtrace.launch.command import PACKAGE_DIR, resolve, run_command
from memtrace.launch.gather import trace_header
from memtrace.launch.output import check_free
from memtrace.schema.changes import ALLOCATOR_VARIABLE, Changes
from memtrace.schema.names import Action
from memtrace.schema.options import PredictOptions, RecordOptions, SurveyOptions
from memtrace.schema.predicted import DRIVERLESS
from memtrace.store.parts.folder import part_names, read_parts
from memtrace.store.trace import RankTrace, Trace

REFUSED = "predict-operator"
"""Slug of the warning of a process that met an operator about which nothing sound can be assumed."""


def predict(
    command: Sequence[str],
    path: Path,
    gpu: PredictOptions,
    *,
    force: bool,
    allow_writes: bool,
    stdout: int | None = None,
    stderr: int | None = None,
    variables: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    survey: SurveyOptions | None = None,
    changes: Changes | None = None,
    progress: Callable[[Path], None] | None = None,
) -> Trace:
    """Run a program as a prediction and return its trace; `stdout` and `stderr` are file descriptors for its output.

    `devices` are the variables under which its torch finds devices that are not there, where it runs on these. It is
    surveyed and changed as it says, where that is asked for. `progress` is called about once a second with the folder
    that its processes write into.

    Raises:
        RecordError, OutputError: it was not started, or its output is in the way, or it failed.
    """
    check_free(path, force=force)
    environ = dict(os.environ)
    resolve(command[0], environ)
    folder = Path(tempfile.mkdtemp(prefix="memtrace-predict-"))
    try:
        (folder / "parts").mkdir()
        (folder / "scratch").mkdir()
        options = RecordOptions(
            parts_dir=str(folder / "parts"),
            steps="1-",
            launcher_pid=os.getpid(),
            package_dir=str(PACKAGE_DIR),
            device="cuda" if gpu.engine == DRIVERLESS else "auto",
            predict=replace(gpu, scratch_dir=None if allow_writes else str(folder / "scratch")),
            survey=survey,
            changes=changes,
        )
        if changes is not None and changes.allocator is not None:
            environ[ALLOCATOR_VARIABLE] = changes.allocator
        environ |= {**_as_rank(gpu), **(variables or {})}
        parts = folder / "parts"
        meanwhile = None if progress is None else lambda: progress(parts)
        status = run_command(command, options, environ, stdout=stdout, stderr=stderr, cwd=cwd, meanwhile=meanwhile)
        return _read(parts, path, command, options, status)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_rank(gpu: PredictOptions) -> dict[str, str]:
    """Return what a launcher would tell this one of several ranks."""
    if gpu.world_size == 1:
        return {}
    local = min(gpu.world_size, gpu.gpus_per_node)
    node, on_node = divmod(gpu.rank, local)
    facts = {
        **dict.fromkeys(("RANK", "ROLE_RANK"), gpu.rank),
        "LOCAL_RANK": on_node,
        "GROUP_RANK": node,
        **dict.fromkeys(("WORLD_SIZE", "ROLE_WORLD_SIZE"), gpu.world_size),
        # The last machine may have fewer.
        "LOCAL_WORLD_SIZE": min(local, gpu.world_size - node * local),
        "GROUP_WORLD_SIZE": -(-gpu.world_size // local),
    }
    return {**{name: str(value) for name, value in facts.items()}, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def _read(parts: Path, path: Path, command: Sequence[str], options: RecordOptions, status: int) -> Trace:
    if not part_names(parts):
        raise RecordError(
            "nothing was predicted: no Python process that imported torch was seen",
            hint="the command after -- is what you would type on the machine with the GPU",
            slug="predict-no-gpu",
        )
    ranks, left_out = read_parts(parts)
    ranks = _as_asked(ranks, options)
    header = trace_header(command, options, status)
    trace = Trace(header=header, ranks=tuple(ranks), path=str(path), warnings=tuple(left_out))
    refused = next((one for rank in ranks for one in rank.warnings if one.slug == REFUSED), None)
    if refused is not None:
        # Whatever the program made of it: from there on, sizes are not known.
        raise RecordError(
            f"the program cannot be predicted: {refused.message}",
            hint="what is not foreseen, and why, stands in docs/predict.md",
            slug=REFUSED,
        )
    if status and not _is_an_answer(trace, status):
        raise _failed(trace, status)
    return trace


def _as_asked(ranks: Sequence[RankTrace], options: RecordOptions) -> list[RankTrace]:
    """Return the processes of the rank that is predicted: a program may start the others itself."""
    wanted = 0 if options.predict is None else options.predict.rank
    found = [one for one in ranks if one.rank in (None, wanted)]
    if not found:
        others = ", ".join(str(one) for one in sorted({one.rank for one in ranks if one.rank is not None}))
        raise RecordError(
            f"no process of the program ran as rank {wanted}, but as {others}: it does not take its rank from RANK",
            hint="give the program its rank as it is started by hand, as with an option of its own",
            slug="predict-failed",
        )
    return found


def _is_an_answer(trace: Trace, status: int) -> bool:
    """Return whether a failed program tells what it needs all the same: torch ran out of memory, or it had ended.

    Torch's own race: a process that ends right after a backward may abort while its thread for it lets go.
    """
    if any(_died_of_memory(rank) for rank in trace.ranks):
        return True
    has_ended = all(rank.complete and not rank.header.get("exception") for rank in trace.ranks)
    return has_ended and status in (-signal.SIGABRT, 128 + signal.SIGABRT)


def _died_of_memory(rank: RankTrace) -> bool:
    """Return whether a request failed and the program made no step any more, whatever it made of the error."""
    events, steps = rank.table("events"), rank.table("steps")
    failed = events["time_ns"][events["action"] == rank.string_id(Action.OOM.value)]
    ended = steps["end_ns"][~steps.is_null("end_ns")]
    return bool(len(failed) and (not len(ended) or failed.max() > ended.max()))


_HINT = "what is not foreseen, and why, stands in docs/predict.md"
_HINTS = {
    "ModuleNotFoundError": "the Python of the program has no such module: install it there, or name another after --",
    "invalid device ordinal": "--gpus-per-node says how many GPUs the program sees",
}
"""By what an error says: what helps."""


def _failed(trace: Trace, status: int) -> RecordError:
    found = next((one.header["exception"] for one in trace.ranks if one.header.get("exception")), None)
    reason = f"exit status {status}" if not isinstance(found, dict) else f"{found.get('type')}: {found.get('message')}"
    return RecordError(
        f"the program cannot be predicted: it ended with {' '.join(reason.split())[:300]}",
        hint=next((hint for said, hint in _HINTS.items() if said in reason), _HINT),
        slug="predict-failed",
    )
