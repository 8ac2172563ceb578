"""Watching a recording while it runs: where its parts are, what they say, and which of its processes are alive."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from memtrace.errors import RecordError
from memtrace.launch.live_results import LiveRank, LiveRun, LiveWarning, RankState
from memtrace.launch.output import LAUNCHER_FILE, MAX_PID, is_running, read_launcher
from memtrace.launch.trigger import candidate_folders
from memtrace.schema.names import Category
from memtrace.schema.redaction import UNNAMED, Redaction
from memtrace.store.parts.folder import part_names
from memtrace.store.parts.running import RunningPart
from memtrace.store.redaction.redact import redacted_warnings
from memtrace.store.trace import LoadWarning

_SILENT_NS = 30 * 10**9
_GONE_AFTER_NS = 2 * 10**9
"""A process that is not found is given this long: its last lines may say that it ended."""
_NUMBERS_END = 2**63
"""Of bytes, times and counts: the first that no recording could write."""


class Watch:
    """Looks at a recording again and again."""

    def __init__(self, run: str, *, redaction: Redaction = Redaction.NOTHING) -> None:
        """Find the recording of an output, a run folder, a folder of parts or a process id.

        `redaction` says what is left out of what is seen of it.

        Raises:
            RecordError: none is there.
        """
        self._run = run
        self._redaction = redaction
        self._parts: dict[tuple[Path, str], RunningPart] = {}
        if not self._folders():
            hint = "name the output (-o) of a `memtrace record` that runs, its .parts folder or a process id"
            if os.path.isfile(run):
                hint = f"its recording has ended: memtrace report {run}"
            raise RecordError(f"{run}: no recording runs there", hint=hint)

    def look(self, now_ns: int) -> LiveRun:
        """Return the recording as it is at this Unix time; reads only what is new."""
        folders = self._folders()
        launchers = {folder: read_launcher(folder) for folder in folders}
        for folder in folders:
            for name in part_names(folder):
                self._parts.setdefault((folder, name), RunningPart(folder, name))
        found: list[LiveRank] = []
        for (folder, _), part in self._parts.items():
            rank = _looked_at(part, launchers.get(folder, {}), now_ns)
            found.append(replace(rank, warnings=_redacted(rank.warnings, part, self._redaction)))
        trains = [one for one in found if one.rank is not None or (one.step or 0) > 0] or found
        in_order = sorted(trains, key=lambda one: (one.rank is None, one.rank or 0, one.pid or 0))
        at_work = {RankState.STARTING, RankState.RUNNING, RankState.SILENT}
        return LiveRun(
            title=self._run if self._redaction is Redaction.NOTHING else UNNAMED,
            ranks=tuple(in_order),
            num_others=len(found) - len(trains),
            is_over=not folders
            or not (any(map(is_running, launchers.values())) or any(one.state in at_work for one in found)),
        )

    def _folders(self) -> list[Path]:
        """Return the folders of parts that are there now; `memtrace.start()` leaves one without a launcher."""
        return [
            folder
            for folder in candidate_folders(self._run)
            if os.path.isfile(folder / LAUNCHER_FILE) or part_names(folder)
        ]


def _looked_at(part: RunningPart, launcher: Mapping[str, Any], now_ns: int) -> LiveRank:
    """Return a process as it is now; one whose files are damaged is named, and must not cost the others."""
    try:
        part.look()
        return _live_rank(part, launcher, now_ns)
    except Exception as error:
        message = f"{part.name} could not be read ({type(error).__name__}: {str(error)!r})"
        warning = LiveWarning(slug="file-unreadable", message=message)
        nothing = dict.fromkeys(field.name for field in fields(LiveRank))
        known = {"rank": _number(part.header, "rank"), "pid": _number(part.header, "pid"), "state": RankState.SILENT}
        return LiveRank(**{**nothing, **known, "by_category": {}, "warnings": (warning,)})  # type: ignore[arg-type]


def _live_rank(part: RunningPart, launcher: Mapping[str, Any], now_ns: int) -> LiveRank:
    status, steps = part.status, part.steps
    age_ns = None if part.written_ns is None else max(now_ns - part.written_ns, 0)
    since_ns = _number(status, "since_ns")
    device = status.get("device")
    durations = [one["end_ns"] - one["start_ns"] for one in steps if one.get("step") and _has_times(one)]
    by_category = status.get("by_category")
    return LiveRank(
        rank=_number(part.header, "rank"),
        pid=_number(part.header, "pid"),
        state=_state(part, launcher, age_ns),
        age_ns=age_ns,
        step=_number(status, "ended_step" if part.has_ended else "step"),
        phase=str(status["phase"]) if "phase" in status else None,
        phase_ns=None if since_ns is None else max(now_ns - since_ns, 0),
        step_ns=sum(durations) // len(durations) if durations else None,
        measured_step=_number(status, "measured_step"),
        device=device if isinstance(device, str) else None,
        capacity_bytes=_number(part.devices.get(str(device), {}), "capacity_bytes"),
        allocated_bytes=_number(status, "allocated_bytes"),
        peak_allocated_bytes=_number(status, "peak_allocated_bytes"),
        reserved_bytes=_number(status, "reserved_bytes"),
        num_alloc_retries=_number(status, "num_alloc_retries"),
        host_rss_bytes=_number(steps[-1], "host_rss_bytes") if steps else None,
        categories_step=_number(status, "categories_step"),
        by_category=_sizes(by_category) if isinstance(by_category, dict) else {},
        warnings=tuple(LiveWarning(slug=slug, message=message) for slug, message in part.warnings),
    )


def _redacted(warnings: Iterable[LiveWarning], part: RunningPart, redaction: Redaction) -> tuple[LiveWarning, ...]:
    found = [LoadWarning(slug=one.slug, message=one.message) for one in warnings]
    hosts, paths = ([str(part.header.get(name) or "")] for name in ("host", "original_path"))
    shown = redacted_warnings(found, redaction, names=[part.name], hosts=hosts, paths=paths)
    return tuple(LiveWarning(slug=one.slug, message=one.message) for one in shown)


def _state(part: RunningPart, launcher: Mapping[str, Any], age_ns: int | None) -> RankState:
    if part.has_ended:
        return RankState.ENDED
    alive = _is_alive(part.header, launcher)
    if alive is False and (age_ns is None or age_ns >= _GONE_AFTER_NS):
        return RankState.GONE
    if alive is None and age_ns is not None and age_ns >= _SILENT_NS:
        return RankState.SILENT
    return RankState.RUNNING if _number(part.status, "step") else RankState.STARTING


def _is_alive(header: Mapping[str, Any], launcher: Mapping[str, Any]) -> bool | None:
    """Return whether a recorded process is still there; `None` where its host is another, or not known."""
    pid, host = _number(header, "pid"), header.get("host") or launcher.get("host")
    if pid is None or not 0 < pid <= MAX_PID or host != socket.gethostname():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Return whether a process is dead and only waits for its parent to notice."""
    try:
        # The name, in brackets, may hold anything; the state follows it.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _number(values: Mapping[str, Any], name: str) -> int | None:
    """Return a number that a file has under a name; `None` where it has none that a recording could write."""
    value = values.get(name)
    return value if type(value) is int and abs(value) < _NUMBERS_END else None


def _has_times(step: Mapping[str, Any]) -> bool:
    return _number(step, "start_ns") is not None and _number(step, "end_ns") is not None


def _sizes(by_category: Mapping[Any, Any]) -> dict[str, int]:
    """Return the bytes of known categories, in their usual order."""
    return {one.value: size for one in Category if (size := _number(by_category, one.value) or 0) > 0}
