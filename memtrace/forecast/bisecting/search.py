"""Where a bisection measures next, and when it is done.

In: commits in order, the first known to be good and the last to be bad, and a function that measures one. Out: the
last good and the first bad. A commit that cannot be measured is passed by: its neighbours are tried instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from memtrace.analysis.results.diff import Diff
from memtrace.forecast.bisecting.results import ChangedLine, MeasuredCommit

Measure = Callable[[str], MeasuredCommit]


def bracket(order: Sequence[str], threshold_bytes: int, measure: Measure) -> tuple[int, int]:
    """Return the positions of the last good commit and of the first bad one; what lies between cannot be measured.

    >>> sizes = dict(zip("abcdef", [10, 10, None, 30, 30, 30]))
    >>> bracket("abcdef", 20, lambda name: MeasuredCommit(commit=name, num_bytes=sizes[name], problem=None))
    (1, 3)
    """
    low, high = 0, len(order) - 1
    while True:
        found = next((at for at in _outwards(low, high) if measure(order[at]).num_bytes is not None), None)
        if found is None:
            return low, high
        if (measure(order[found]).num_bytes or 0) > threshold_bytes:
            high = found
        else:
            low = found


def _outwards(low: int, high: int) -> Iterator[int]:
    """Yield the positions strictly between two, from the middle on to both sides.

    >>> list(_outwards(2, 7))
    [4, 5, 3, 6]
    """
    middle = (low + high) // 2
    for distance in range(high - low):
        for at in (middle + distance, middle - distance) if distance else (middle,):
            if low < at < high:
                yield at


def changed_lines(
    diff: Diff, changes: Mapping[str, Sequence[tuple[int, int]]], inside: Callable[[str], str | None]
) -> tuple[ChangedLine, ...]:
    """Return the lines of a change through which was allocated what grew, the largest growth first.

    Args:
        diff: the run before the change and the one after it.
        changes: by path in the repository, first and last line of each stretch that the change wrote.
        inside: the path in the repository of a file of a stack, `None` for one outside it.
    """
    found: dict[tuple[str, int, str], int] = {}
    for stack in diff.ranks[0].stacks if diff.ranks else ():
        if stack.delta_bytes <= 0:
            continue
        line = next((one for one in map(_parts, stack.frames) if one and _is_changed(one, changes, inside)), None)
        if line is not None:
            key = (inside(line[0]) or line[0], line[1], line[2])
            found[key] = found.get(key, 0) + stack.delta_bytes
    lines = [
        ChangedLine(path=path, line=line, function=function, delta_bytes=size)
        for (path, line, function), size in found.items()
    ]
    return tuple(sorted(lines, key=lambda one: (-one.delta_bytes, one.path, one.line)))


def _parts(frame: str) -> tuple[str, int, str] | None:
    """Return file, line and function of a frame.

    >>> _parts("models/gpt.py:30 forward"), _parts("built-in")
    (('models/gpt.py', 30, 'forward'), None)
    """
    place, _, function = frame.partition(" ")
    file, _, line = place.rpartition(":")
    return (file, int(line), function) if file and line.isdigit() else None


def _is_changed(
    place: tuple[str, int, str],
    changes: Mapping[str, Sequence[tuple[int, int]]],
    inside: Callable[[str], str | None],
) -> bool:
    path = inside(place[0])
    return path is not None and any(first <= place[1] <= last for first, last in changes.get(path, ()))
