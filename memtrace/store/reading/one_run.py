"""Whether several files are of one run: a folder of unrelated traces is none, and read as one it would mislead.

Two files are of different runs if their numbers of ranks differ; or if they are not different ranks of one number, and
other scripts ran, or one had ended before the other began. What is not recorded decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from memtrace.errors import TraceReadError
from memtrace.store.reading.process import Process

_OWN_NAME = re.compile(r"(rank|process|launcher)-.*\.(json|json\.gz|parts)")
"""What memtrace calls the files of a run folder, which it never lets two runs share."""
_MAX_NAMED = 3

File = tuple[str, Sequence[Process]]
"""What messages call a file, and the processes in it."""


def check_one_run(files: Sequence[File], *, title: str) -> None:
    """Check that files are of one run; `title` is what was named.

    Raises:
        TraceReadError: they are not.
    """
    firsts: list[File] = []
    for file in files:
        if all(_differ(file, first) for first in firsts):
            firsts.append(file)
    if len(firsts) > 1:
        raise _several_runs(firsts, title)


def _several_runs(firsts: Sequence[File], title: str) -> TraceReadError:
    named = [f"{_script(file)} ({PurePath(file[0]).name})" for file in firsts[:_MAX_NAMED]]
    more = f" and {len(firsts) - len(named)} more" if len(firsts) > len(named) else ""
    (first, _), (second, _) = firsts[:2]
    return TraceReadError(
        f"{title}: traces of {len(firsts)} different runs, not the ranks of one: {', '.join(named)}{more}",
        hint=f"name one (memtrace report {first}), or compare two (memtrace diff {first} {second})",
        slug="several-runs",
    )


def _script(file: File) -> str:
    return min(_scripts(file[1]), default="a run")


def _differ(file: File, other: File) -> bool:
    """Return whether two files are known to be of different runs."""
    (name, these), (other_name, those) = file, other
    sizes, other_sizes = _known(these, "world_size"), _known(those, "world_size")
    if sizes and other_sizes and sizes.isdisjoint(other_sizes):
        return True
    if _is_own(name) and _is_own(other_name) and PurePath(name).parent == PurePath(other_name).parent:
        return False
    ranks, other_ranks = {one.rank for one in these}, {one.rank for one in those}
    if None not in ranks | other_ranks and ranks.isdisjoint(other_ranks) and sizes and other_sizes:
        return False
    scripts, other_scripts = _scripts(these), _scripts(those)
    if scripts and other_scripts and scripts.isdisjoint(other_scripts):
        return True
    return _ended_before(these, those) or _ended_before(those, these)


def _is_own(name: str) -> bool:
    return _OWN_NAME.fullmatch(PurePath(name).name) is not None


def _scripts(processes: Sequence[Process]) -> set[str]:
    """Return the names of the scripts that ran; their folders may differ from host to host."""
    return {PurePath(str(path)).name for path in _known(processes, "original_path")}


def _known(processes: Sequence[Process], name: str) -> set[object]:
    return {one.header[name] for one in processes if one.header.get(name) is not None}


def _ended_before(these: Sequence[Process], those: Sequence[Process]) -> bool:
    """Return whether the last of some processes is known to have ended before the first of others began."""
    ends = [one.header.get("end_ns") for one in these]
    starts = [one.header.get("start_ns") for one in those]
    known_ends, known_starts = ([one for one in times if isinstance(one, int)] for times in (ends, starts))
    if not known_ends or len(known_ends) < len(ends) or len(known_starts) < len(starts):
        return False
    return bool(known_starts) and max(known_ends) < min(known_starts)
