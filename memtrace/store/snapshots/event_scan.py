"""Where the events of a history lie in a pickle, and which shape each has (see `event_shapes`).

In: opcodes of a pickle. Out: `Scan`: every place that looks like the start of an event, with what stands there. Whether
it is one is told later, by `event_runs` and the unpickler.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from memtrace.store.columns import IntArray
from memtrace.store.snapshots.event_shapes import START, WINDOW, Bytes, Shape, numbers_at, shape_of

ABSENT = -1
_AT_ONCE = 1 << 15
"""Events that are compared with shapes at once: their windows fit a processor's cache."""
_BYTES_AT_ONCE = 1 << 24
_SAMPLE_BYTES = 1 << 20
_MAX_SHAPES = 256
_MAX_WITHOUT = 20_000
"""Events without a shape that are looked at, before the pickle is taken for something else."""
_FIRST_KEY = re.compile(re.escape(START) + rb"(?:h.|j.{4})", re.DOTALL)
_REFERENCES = re.compile(rb"(?:h.|j.{4})*", re.DOTALL)


class UnlikeError(Exception):
    """The pickle is not what torch writes for a long history; it is read event by event."""


@dataclass(slots=True, kw_only=True, eq=False)
class Scan:
    """What looks like events, in their order; each array has a value for each."""

    keys: tuple[bytes, ...]
    """The references that are the keys of an event."""
    start: IntArray
    stop: IntArray
    """Where it ends; absent where it is none."""
    num_remembered: IntArray
    """Objects that it adds to the memo of the pickle."""
    ints: dict[int, IntArray]
    """Numbers, by place of their key."""
    action: IntArray
    """The reference that is the value of the first key."""
    others: dict[int, IntArray]
    """References that are other values, by place of their key; absent where the value is no reference."""
    frames: IntArray
    """The reference to a list of frames; absent where the list itself follows."""
    stack: IntArray
    """Which of `stacks` follows; absent where it is a reference."""
    stacks: list[bytes]
    """Distinct lists of references to frames."""


def scan_events(data: bytes) -> Scan:
    """Return what looks like the events of a history, by far the most common dicts of a pickle.

    Raises:
        UnlikeError: there are none.
    """
    content = np.frombuffer(data, np.uint8)
    start = _starts(data, content)
    scanner = _Scanner(content, start)
    scan = scanner.scan()
    _find_ends(scan, scanner, content)
    _find_lists(scan, scanner, data)
    return scan


def _starts(data: bytes, content: Bytes) -> IntArray:
    """Return where the beginning stands that is most common in the middle of the data."""
    middle = len(data) // 2
    found = Counter(_FIRST_KEY.findall(data, max(0, middle - _SAMPLE_BYTES // 2), middle + _SAMPLE_BYTES // 2))
    if not found:
        raise UnlikeError
    beginning = found.most_common(1)[0][0]
    places = []
    # Nothing starts in the zeros behind the opcodes, and a window must not leave the data.
    last = len(content) - WINDOW
    for at in range(0, last, _BYTES_AT_ONCE):
        here = np.flatnonzero(content[at : min(at + _BYTES_AT_ONCE, last)] == beginning[0]) + at
        for offset in range(1, len(beginning)):
            here = here[content[here + offset] == beginning[offset]]
        places.append(here)
    return np.concatenate(places)


class _Scanner:
    """Finds the shape of each event, and takes its values."""

    def __init__(self, content: Bytes, start: IntArray) -> None:
        num = len(start)
        self.start = start
        self.shapes: list[Shape] = []
        self.model = self._model(content)
        # As much as the events before their frames take, some longer numbers among them.
        width = min(WINDOW, -(-self.model.num_bytes // 8) * 8 + 24)
        self.windows = np.lib.stride_tricks.sliding_window_view(content, width)
        self.places = _int_places(self.model)
        self.ints = {place: np.zeros(num, np.int64) for place in self.places}
        self.action, self.frames, self.stop, self.num_remembered = (np.full(num, ABSENT, np.int64) for _ in range(4))
        self.list_start, self.list_stop = (np.full(num, ABSENT, np.int64) for _ in range(2))
        self.others: dict[int, IntArray] = {}
        self.num_without = 0

    def scan(self) -> Scan:
        """Return the scan, without ends of long lists of frames and what they are."""
        for at in range(0, len(self.start), _AT_ONCE):
            self._scan_some(at, self.windows[self.start[at : at + _AT_ONCE]])
        return Scan(
            keys=self.model.keys,
            start=self.start,
            stop=self.stop,
            num_remembered=self.num_remembered,
            ints=self.ints,
            action=self.action,
            others=self.others,
            frames=self.frames,
            stack=np.full(len(self.start), ABSENT, np.int64),
            stacks=[],
        )

    def _model(self, content: Bytes) -> Shape:
        """Return the shape of an event in the middle: all others must have its keys."""
        middle = len(self.start) // 2
        for start in self.start[middle : middle + 100].tolist():
            shape = shape_of(content[start : start + WINDOW].tobytes())
            if shape is not None and shape.values and shape.values[0].kind == "reference":
                return shape
        raise UnlikeError

    def _scan_some(self, first: int, windows: Bytes) -> None:
        words = windows.view(np.uint64)
        left = np.arange(len(windows))
        for shape in self.shapes:
            if not len(left):
                return
            left = self._take(shape, first, windows, words, left)
        while len(left):
            shape_here, at = self._next_shape(windows, left)
            if shape_here is None:
                return
            self.shapes.append(shape_here)
            left = self._take(shape_here, first, windows, words, left[at:])

    def _next_shape(self, windows: Bytes, left: IntArray) -> tuple[Shape | None, int]:
        """Return the shape of the first of some events that has one, and which it is."""
        for at, row in enumerate(left.tolist()):
            shape = shape_of(windows[row].tobytes())
            if shape is not None and shape.num_bytes <= windows.shape[1] - 8 and self._is_like_model(shape):
                if len(self.shapes) == _MAX_SHAPES:
                    raise UnlikeError
                return shape, at
            self.num_without += 1
            if self.num_without > _MAX_WITHOUT:
                raise UnlikeError
        return None, len(left)

    def _is_like_model(self, shape: Shape) -> bool:
        return (
            shape.keys == self.model.keys and shape.values[0].kind == "reference" and _int_places(shape) == self.places
        )

    def _take(self, shape: Shape, first: int, windows: Bytes, words: np.ndarray, left: IntArray) -> IntArray:
        """Take the values of the events of a shape. Return those that are left."""
        is_one = shape.matches(words if len(left) == len(words) else words[left])
        rows = left[is_one]
        if len(rows):
            events, chosen = rows + first, windows[rows]
            for place in self.places:
                self.ints[place][events] = numbers_at(chosen, shape.values[place])
            self.action[events] = numbers_at(chosen, shape.values[0])
            self._take_others(shape, events, chosen)
            self._take_frames(shape, events, chosen)
            self.num_remembered[events] = shape.num_remembered
        return left[~is_one]

    def _take_others(self, shape: Shape, events: IntArray, windows: Bytes) -> None:
        for place, value in enumerate(shape.values[1:], 1):
            if value.kind == "reference":
                if place not in self.others:
                    self.others[place] = np.full(len(self.start), ABSENT, np.int64)
                self.others[place][events] = numbers_at(windows, value)

    def _take_frames(self, shape: Shape, events: IntArray, windows: Bytes) -> None:
        frames = shape.frames
        if frames.kind == "reference":
            self.frames[events] = numbers_at(windows, frames)
        else:
            self.list_start[events] = self.start[events] + frames.at
        if frames.kind == "list":
            self.list_stop[events] = self.list_start[events] + frames.num_bytes
        if frames.kind != "longer":
            self.stop[events] = self.start[events] + shape.num_bytes


def _int_places(shape: Shape) -> list[int]:
    return [place for place, value in enumerate(shape.values) if value.kind == "int"]


def _find_ends(scan: Scan, scanner: _Scanner, content: Bytes) -> None:
    """Find where long lists of frames end: right before the next event. Affects: `stop` of the scan, `list_stop`."""
    longer = np.flatnonzero((scanner.list_start != ABSENT) & (scanner.list_stop == ABSENT))
    longer = longer[longer < len(scan.start) - 1]
    after = scan.start[longer + 1]
    # The next event follows at once, or it is the first of the next thousand.
    stop = np.where(content[after - 1] == ord("("), after - 2, after)
    is_closed = (content[stop - 1] == ord("u")) & (content[stop - 2] == ord("e"))
    longer, stop = longer[is_closed], stop[is_closed]
    scan.stop[longer] = stop
    scanner.list_stop[longer] = stop - 2


def _find_lists(scan: Scan, scanner: _Scanner, data: bytes) -> None:
    """Find which lists of frames are the same. Affects: `stack` and `stacks` of the scan; `stop` where one is none."""
    known: dict[bytes, int] = {}
    events = np.flatnonzero(scanner.list_stop != ABSENT)
    for at in range(0, len(events), _AT_ONCE):
        some = events[at : at + _AT_ONCE]
        begins, ends = scanner.list_start[some].tolist(), scanner.list_stop[some].tolist()
        lists = [data[begin:end] for begin, end in zip(begins, ends, strict=True)]
        try:
            codes = list(map(known.__getitem__, lists))
        except KeyError:
            for one in lists:
                if one not in known:
                    known[one] = len(scan.stacks) if _REFERENCES.fullmatch(one) else ABSENT
                    scan.stacks += [one] if known[one] != ABSENT else []
            codes = list(map(known.__getitem__, lists))
        scan.stack[some] = codes
    scan.stop[events[scan.stack[events] == ABSENT]] = ABSENT
