"""The line of a program under which many allocations were made: where to look when they are one thing's fault.

In: stacks and bytes. Out: a `where` of a `Finding`.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from memtrace.analysis.device.stacks import frames_of
from memtrace.schema.frames import own_frames
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace

_FRAME = re.compile(r"(?P<file>.*):(?P<line>\d+) (?P<function>.*)")
_NEARLY_ALL = 0.9
_OF_A_MODEL = re.compile(r"(?:^|/)torch/(?:nn/modules/module|utils/checkpoint|autograd/function|_dynamo/)")
"""Library code that calls the program's own as a part of its model. Others call its loop: launchers, trainers, closures
of an optimizer."""


def shared_line(rank: RankTrace, stacks: Iterable[tuple[int, int]]) -> dict[str, Any] | None:
    """Return the innermost line of the program's own code under which nearly all of some bytes were asked for.

    `stacks` are rows of the stacks table, null included, with bytes. What a loss keeps alive was made all over the
    model; it shares the line that called the model. Where the program's own calls part before that, it is the line with
    the most bytes, also in a loop that a library calls. `None` without stacks.
    """
    by_stack: Counter[int] = Counter()
    for stack, num_bytes in stacks:
        if stack != NULL:
            by_stack[stack] += num_bytes
    paths = {stack: _path(frames_of(rank, stack)) for stack in by_stack}
    shared: str | None = None
    for depth in itertools.count():
        frames: Counter[_Call] = Counter()
        for stack, path in paths.items():
            if depth < len(path):
                frames[path[depth]] += by_stack[stack]
        call, num_bytes = max(frames.items(), key=lambda item: (item[1], item[0]), default=(None, 0))
        parts = num_bytes < _NEARLY_ALL * sum(by_stack[stack] for stack in paths)
        if call is None or (shared is not None and parts and call[1]):
            break
        shared = call[0]
        paths = {stack: path for stack, path in paths.items() if depth < len(path) and path[depth] == call}
    match = None if shared is None else _FRAME.fullmatch(shared)
    if match is None:
        return None
    return {"file": match["file"], "line": int(match["line"]), "function": match["function"], "module": None}


_Call = tuple[str, bool]
"""A frame of the program's own code, and whether it was called as a part of a model, as torch calls forwards."""


def _path(frames: Sequence[str]) -> list[_Call]:
    """Return the program's own frames of a stack, outermost first."""
    own = set(own_frames(frames))
    around = [*frames[1:], None]
    calls = [
        (frame, outer is not None and outer not in own and _OF_A_MODEL.search(outer) is not None)
        for frame, outer in zip(frames, around, strict=True)
    ]
    return [call for call in reversed(calls) if call[0] in own]
