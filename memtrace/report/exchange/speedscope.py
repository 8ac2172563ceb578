"""The stacks at the peak as a flame graph for speedscope: one profile a rank and device, weights in bytes.

In: `Report`. Out: JSON in the format of speedscope.app/file-format-schema.json, which wants the outermost frame first.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from memtrace import __version__
from memtrace.analysis.results.report import RankReport, Report

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_PLACE = re.compile(r"^(?P<file>.*):(?P<line>\d+) (?P<name>.*)$")
_UNKNOWN = "no stack recorded"


def speedscope_json(report: Report) -> bytes:
    """Return the profiles of a report."""
    frames: dict[str, int] = {}
    profiles = [_profile(rank, frames) for rank in report.ranks if rank.top_stacks]
    document = {
        "$schema": _SCHEMA,
        "name": report.title,
        "exporter": f"memtrace {__version__}",
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(text) for text in frames]},
        "profiles": profiles,
    }
    return orjson.dumps(document)


def _profile(rank: RankReport, frames: dict[str, int]) -> dict[str, Any]:
    samples = [
        [frames.setdefault(frame, len(frames)) for frame in reversed(row.frames or (_UNKNOWN,))]
        for row in rank.top_stacks
    ]
    weights = [row.num_bytes for row in rank.top_stacks]
    return {
        "type": "sampled",
        "name": ("" if rank.rank is None else f"rank {rank.rank}, ") + f"{rank.device}: bytes at the peak",
        "unit": "bytes",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }


def _frame(text: str) -> dict[str, Any]:
    """Return a frame of "file:line function".

    >>> _frame("train.py:7 forward")
    {'name': 'forward', 'file': 'train.py', 'line': 7}
    >>> _frame("AddmmBackward0")
    {'name': 'AddmmBackward0'}
    """
    found = _PLACE.match(text)
    return (
        {"name": text} if found is None else {"name": found["name"], "file": found["file"], "line": int(found["line"])}
    )
