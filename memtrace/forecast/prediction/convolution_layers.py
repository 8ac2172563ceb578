"""Which convolutions make the range of a prediction: what cuDNN may take for each, and how much the peak would rise.

In: a predicted rank with what was noted of its convolutions. Out: a `ConvolutionLayer` each. From nothing to its
unfolded input is the range of a layer; a layer that runs while little is held does not raise the peak.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from memtrace.analysis.device.stacks import frames_of
from memtrace.analysis.events.innermost import Spans
from memtrace.forecast.prediction.results import ConvolutionLayer
from memtrace.schema.frames import own_frames
from memtrace.schema.names import Action
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace

_FRAME = re.compile(r"(?P<file>.*):(?P<line>\d+)( .*)?")
_COUNTED = ("time_ns", "workspace_bytes", "level_bytes")


def layers_of(rank: RankTrace, peak_allocated_bytes: int) -> tuple[ConvolutionLayer, ...]:
    """Return the convolutions of a run, first those that could raise its peak most, then by what they may take."""
    noted = [
        one for one in rank.header.get("convolutions") or () if all(type(one.get(name)) is int for name in _COUNTED)
    ]
    found = list(_layers(rank, noted, peak_allocated_bytes)) if noted else []
    return tuple(sorted(found, key=lambda one: (-one.more_bytes, -one.workspace_bytes)))


def _layers(rank: RankTrace, noted: list[Mapping[str, Any]], peak: int) -> Iterator[ConvolutionLayer]:
    times = np.array([one["time_ns"] for one in noted], np.int64)
    scopes = rank.table("scopes")
    around = Spans.build(scopes["start_ns"], scopes["end_ns"]).innermost(times)
    stacks = _stacks_at(rank, times)
    for one, scope, stack in zip(noted, around.tolist(), stacks, strict=True):
        file, line = _line_of(rank, stack)
        yield ConvolutionLayer(
            module=None if scope < 0 else rank.text(int(scopes["module"][scope])),
            file=file,
            line=line,
            workspace_bytes=one["workspace_bytes"],
            more_bytes=max(one["level_bytes"] - peak, 0),
        )


def _stacks_at(rank: RankTrace, times: Any) -> list[int]:
    """Return for each time the stack of what was allocated last: the output of the convolution that ran then."""
    events = rank.table("events")
    rows = np.flatnonzero((events["action"] == rank.string_id(Action.ALLOC.value)) & (events["stack"] != NULL))
    rows = rows[np.argsort(events["time_ns"][rows], kind="stable")]
    at = np.searchsorted(events["time_ns"][rows], times, side="right") - 1
    return [int(events["stack"][rows[one]]) if one >= 0 else NULL for one in at.tolist()]


def _line_of(rank: RankTrace, stack: int) -> tuple[str | None, int | None]:
    frames = own_frames(frames_of(rank, stack)) if stack != NULL else []
    match = _FRAME.fullmatch(frames[0]) if frames else None
    return (None, None) if match is None else (match["file"], int(match["line"]))
