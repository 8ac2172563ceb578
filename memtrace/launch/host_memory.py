"""Whether the host may have killed the program for want of memory: SIGKILL says nothing of why it was sent."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from memtrace.units import format_bytes

HIGH_SHARE = 0.7
"""A process killed while it held this share of what the host could give was probably killed for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """What the host says about memory at one moment; `None` where it does not say."""

    num_oom_kills: int | None
    """Processes that this host, or this container, has killed for want of memory."""
    limit_bytes: int | None
    """Most that the program can take: the container's limit, or what the host has."""
    peak_child_rss_bytes: int
    """Largest resident memory of any process below this one that has ended."""


def read_host_memory() -> HostMemory:
    """Return what the host says now."""
    group = _control_group()
    kills = [_counter(Path("/proc/vmstat"), "oom_kill")]
    limits = [_total_memory()]
    if group is not None:
        kills.append(_counter(group / "memory.events", "oom_kill"))
        limits.append(_limit(group / "memory.max"))
    known_kills = [one for one in kills if one is not None]
    known_limits = [one for one in limits if one is not None]
    return HostMemory(
        num_oom_kills=sum(known_kills) if known_kills else None,
        limit_bytes=min(known_limits, default=None),
        peak_child_rss_bytes=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    )


def possible_kill(before: HostMemory, after: HostMemory) -> str | None:
    """Return a sentence if a process that was killed between two moments was possibly killed by the host."""
    peak = format_bytes(after.peak_child_rss_bytes)
    if (
        before.num_oom_kills is not None
        and after.num_oom_kills is not None
        and after.num_oom_kills > before.num_oom_kills
    ):
        return f"The host killed a process for want of memory during the run; the program held up to {peak} of it."
    if after.limit_bytes is not None and after.peak_child_rss_bytes >= HIGH_SHARE * after.limit_bytes:
        limit = format_bytes(after.limit_bytes)
        return f"A process died while it held {peak} of {limit} of host memory: the host may have killed it for that."
    return None


def _control_group() -> Path | None:
    """Return the folder of this process's control group (version 2)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::"):
            folder = Path("/sys/fs/cgroup") / line[3:].lstrip("/")
            return folder if folder.is_dir() else None
    return None


def _counter(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), None)


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _total_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
