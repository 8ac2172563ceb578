"""Where the time of a profile goes, worked out from its raw JSON in the plainest way: no part of memtrace is used.

Every moment at which something starts or ends cuts the time line; of each piece between two cuts it is noted what runs.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Span = tuple[int, int]

KERNELS, COPIES = ("kernel", "Kernel"), ("gpu_memcpy", "gpu_memset", "Memcpy", "Memset")
CALLS = ("cuda_runtime", "cuda_driver", "Runtime")
STEP = re.compile(r"ProfilerStep#(\d+)")


def read_events(path: Path) -> tuple[list[Event], int]:
    """Return the activities of a file and the Unix time in ns that their times count from."""
    with gzip.open(path) as file:
        document = json.load(file)
    entries = document["traceEvents"] if isinstance(document, dict) else document
    base = document.get("baseTimeNanoseconds", 0) if isinstance(document, dict) else 0
    return [one for one in entries if one.get("ph") == "X" and "dur" in one], base


def nanoseconds(time_us: float) -> int:
    """Return a time in whole ns: whole µs, and the fraction rounded."""
    whole = int(time_us // 1)
    return whole * 1000 + round(Fraction(time_us - whole) * 1000)


def span(event: Event, base: int) -> Span:
    start = nanoseconds(event["ts"]) + base
    return start, start + nanoseconds(event["dur"])


def is_gpu(event: Event) -> bool:
    return event.get("cat") in KERNELS + COPIES


def sort_of(event: Event) -> str:
    """Return compute, communication or copy."""
    if event["cat"] in COPIES:
        return "copy"
    return "communication" if event["name"].startswith(("nccl", "rccl", "msccl")) else "compute"


def pieces(spans: Sequence[tuple[str, int, int]], cuts: Iterable[int] = ()) -> Iterator[tuple[int, int, set[str]]]:
    """Yield start, end and what runs, for each stretch in which that does not change."""
    changes = sorted(
        [(start, 1, name) for name, start, end in spans if end > start]
        + [(end, -1, name) for name, start, end in spans if end > start]
        + [(cut, 0, "") for cut in cuts]
    )
    running: dict[str, int] = {}
    for (time, change, name), following in pairwise(changes):
        running[name] = running.get(name, 0) + change
        if following[0] > time:
            yield time, following[0], {one for one, count in running.items() if count}


def split(own: Sequence[Event], everything: Sequence[Event], window: Span, base: int) -> dict[str, int]:
    """Return the figures of a window by the names of `TimeSplit`."""
    start, end = window
    found = dict.fromkeys(
        ("compute", "communication", "hidden", "exposed", "copy", "copy_only", "other", "outside", "idle"), 0
    )
    spans = [(sort_of(one), *span(one, base)) for one in own] + [("any", *span(one, base)) for one in everything]
    for first, last, running in pieces(spans, window):
        length, inside = last - first, start <= first and last <= end
        mine = running & {"compute", "communication", "copy"}
        found["compute"] += length * ("compute" in mine)
        found["communication"] += length * ("communication" in mine)
        found["hidden"] += length * ({"compute", "communication"} <= mine)
        found["exposed"] += length * ("communication" in mine and "compute" not in mine)
        found["copy"] += length * ("copy" in mine)
        found["copy_only"] += length * (mine == {"copy"})
        found["outside"] += length * (bool(mine) and not inside)
        found["other"] += length * (inside and "any" in running and not mine)
        found["idle"] += length * (inside and "any" not in running)
    return {f"{name}_ns": value for name, value in found.items()}


def whole_file(events: Sequence[Event], base: int) -> dict[str, int]:
    """Return the figures from the first activity on the GPU to the end of the last."""
    work = [one for one in events if is_gpu(one)]
    spans = [span(one, base) for one in work]
    return split(work, work, (min(start for start, _ in spans), max(end for _, end in spans)), base)


def by_step(events: Sequence[Event], base: int) -> list[tuple[int, Span, dict[str, int]]]:
    """Return number, window and figures of each step, by number."""
    work = [one for one in events if is_gpu(one)]
    launched: dict[int, int] = {}
    for one in events:
        if one.get("cat") in CALLS and "correlation" in one.get("args", {}):
            correlation, start = one["args"]["correlation"], span(one, base)[0]
            launched[correlation] = min(start, launched.get(correlation, start))
    steps = []
    for one in events:
        named = STEP.fullmatch(str(one.get("name")))
        if named and one.get("cat") != "gpu_user_annotation":
            start, end = span(one, base)
            own = [each for each in work if start <= launched.get(each["args"]["correlation"], start - 1) < end]
            steps.append((int(named[1]), (start, end), split(own, work, (start, end), base)))
    return sorted(steps, key=lambda step: step[0])
