"""Ranks that are on the device of another rank beside their own: each opens a context there, hundreds of megabytes.

In: the reports of all ranks and devices. Out: a `Finding` a device. A rank's own device is that on which it peaks
highest. Which devices are which is known within a process, so only processes that see both devices count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memtrace.analysis.results.report import Finding, RankReport
from memtrace.units import format_bytes


def shared_devices(reports: Sequence[RankReport]) -> Iterator[Finding]:
    """Yield each device that is the own one of a rank and on which other ranks of its host hold memory too."""
    of_rank: dict[tuple[object, int], list[RankReport]] = {}
    for report in reports:
        if report.device != "cpu" and report.rank is not None:
            of_rank.setdefault((report.facts.get("host"), report.rank), []).append(report)
    own = {key: max(devices, key=_peak) for key, devices in of_rank.items()}
    guests: dict[tuple[object, str], list[RankReport]] = {}
    for key, devices in of_rank.items():
        for report in devices:
            if report is not own[key] and _peak(report) > 0:
                guests.setdefault((key[0], report.device), []).append(report)
    for (host, device), found in guests.items():
        hosts = [rank for (of_host, rank), report in own.items() if of_host == host and report.device == device]
        if hosts:
            yield _finding(device, min(hosts), found)


def _peak(report: RankReport) -> int:
    return report.max_reserved_bytes or report.peak.allocated_bytes or report.peak.requested_bytes or 0


def _finding(device: str, owner: int, guests: Sequence[RankReport]) -> Finding:
    ranks = sorted(one.rank for one in guests if one.rank is not None)
    held = sum(map(_peak, guests))
    who = f"Rank {ranks[0]} is" if len(ranks) == 1 else f"Ranks {', '.join(map(str, ranks))} are"
    return Finding(
        slug="several-contexts",
        severity="warning",
        title=f"{who} on {device}, the device of rank {owner}, too: {format_bytes(held)}, and a context each",
        evidence={"device": device, "rank_of_device": owner, "ranks": ranks, "held_there_bytes": held},
        change="Call torch.cuda.set_device(local_rank) before anything is made on a device, load checkpoints with "
        'map_location=f"cuda:{local_rank}" (or "cpu"), and empty no cache of another device.',
        cost="None.",
        saves_bytes=None,
        saves_ns=None,
        new_peak_bytes=None,
        rank=owner,
        where=None,
    )
