"""The requests of a recording as a remedy would make them: some left out, smaller, freed earlier, or in addition.

In: requests, the allocations of the same history, and `Cut`s. Out: `Edited`, which the model of the allocator takes.

A cut takes bytes off a level, over moments; what an allocator is asked for are whole requests. So an allocation that
loses bytes for a part of its life becomes a request a part:

    recorded       take a ……………………………………………… give a
    without b to c take a …… give a | b     c | take a' …… give a'

What gets smaller does so before the event of its moment and what gets larger after it, as levels have it: they hold
after the event. What a cut adds is a request of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.allocator.requests import COMPLETE, GIVE, TAKE, Requests
from memtrace.analysis.advice.case import Cut
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.analysis.events.moments import Moments
from memtrace.store.columns import IntArray

_Stretch = tuple[int, int, int]
"""First moment, first moment after, bytes."""
_LESS, _MORE = 0, 1
"""Whether an entry comes before the event of its moment, or after it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edited:
    """Requests of a recording, changed."""

    requests: Requests
    num_before: int
    """Entries at the front that change what was in use before the history: no level before them counts."""


def edited_requests(requests: Requests, moments: Moments, lifetimes: Lifetimes, cuts: Sequence[Cut]) -> Edited | None:
    """Return the requests with some cuts; `None` where a cut is of bytes that no request is known to have asked for."""
    stretches = _cut_by_request(requests, moments, lifetimes, cuts)
    if stretches is None:
        return None
    edit = _Edit(requests, moments)
    for number, (start, end, pieces) in stretches.items():
        edit.change(number, _remaining(start, end, int(requests.size[number]), pieces))
    for cut in cuts:
        for start, end, size in _added(cut):
            edit.add(start, end, size)
    return edit.done()


def _added(cut: Cut) -> Iterator[_Stretch]:
    more = np.flatnonzero((cut.size_bytes < 0) & (cut.end > cut.start))
    yield from zip(cut.start[more].tolist(), cut.end[more].tolist(), (-cut.size_bytes[more]).tolist(), strict=True)


def _cut_by_request(
    requests: Requests, moments: Moments, lifetimes: Lifetimes, cuts: Sequence[Cut]
) -> dict[int, tuple[int, int, list[_Stretch]]] | None:
    """Return for each request that loses bytes its life, and the stretches in which it does."""
    numbers = _Numbers(requests, moments)
    found: dict[int, tuple[int, int, list[_Stretch]]] = {}
    for cut in cuts:
        less = np.flatnonzero((cut.size_bytes > 0) & (cut.end > cut.start))
        if len(less) and cut.rows is None:
            return None
        for at in less.tolist():
            row = int(cut.rows[at]) if cut.rows is not None else -1
            start = int(lifetimes.start[row])
            number = numbers.of(int(lifetimes.address[row]), start)
            if number is None:
                return None
            life = found.setdefault(number, (start, int(lifetimes.in_use_end[row]), []))
            life[2].append((int(cut.start[at]), int(cut.end[at]), int(cut.size_bytes[at])))
    return found


class _Numbers:
    """The requests by where and when they were made."""

    def __init__(self, requests: Requests, moments: Moments) -> None:
        row_of = dict(zip(moments.rows.tolist(), moments.of_event.tolist(), strict=True))
        starts = [moments.epochs[-1].start if row < 0 else row_of.get(row, -1) for row in requests.row.tolist()]
        columns = zip(starts, requests.address.tolist(), requests.size.tolist(), range(len(starts)), strict=True)
        self._sorted = sorted(columns)
        self._keys = [(start, address) for start, address, _, _ in self._sorted]

    def of(self, address: int, start: int) -> int | None:
        """Return the request whose bytes an address was in, from its first moment on."""
        at = bisect_right(self._keys, (start, address)) - 1
        if at < 0:
            return None
        own_start, own_address, size, number = self._sorted[at]
        return number if own_start == start and own_address <= address < own_address + max(size, 1) else None


def _remaining(start: int, end: int, size: int, pieces: Sequence[_Stretch]) -> list[_Stretch]:
    """Return how many bytes there are in which stretch of a life.

    >>> _remaining(0, 9, 10, [(2, 5, 10), (5, 20, 4)])
    [(0, 2, 10), (2, 5, 0), (5, 9, 6)]
    """
    clipped = [(max(one, start), min(other, end), num_bytes) for one, other, num_bytes in pieces]
    bounds = sorted({start, end, *(at for one, other, _ in clipped if one < other for at in (one, other))})
    found: list[_Stretch] = []
    for one, other in itertools.pairwise(bounds):
        away = sum(num_bytes for first, last, num_bytes in clipped if first <= one and last >= other)
        left = max(size - away, 0)
        if found and found[-1][2] == left:
            found[-1] = found[-1][0], other, left
        else:
            found.append((one, other, left))
    return found


class _Edit:
    """Entries to be put in, taken out and renamed, until all are known."""

    def __init__(self, requests: Requests, moments: Moments) -> None:
        self._requests = requests
        self._moments = moments
        self._start = moments.epochs[-1].start
        self._size = requests.size.tolist()
        self._like = list(range(len(self._size)))
        """For each request the one whose stream, row and address it has."""
        self._not_taken: set[int] = set()
        """Requests that are not made where they were recorded."""
        self._not_given: set[int] = set()
        """Requests whose recorded frees go."""
        self._given_as: dict[int, int] = {}
        """Requests whose recorded frees are those of others."""
        self._inserted: list[tuple[int, int, int, int]] = []
        """Moment, `_LESS` or `_MORE`, kind, request."""
        self._largest = int(np.argmax(requests.size)) if len(requests.size) else 0

    def change(self, number: int, life: Sequence[_Stretch]) -> None:
        """Give a request other bytes in stretches of its life, which they cover."""
        start, _, first = life[0]
        is_initial = number < self._requests.num_initial
        current: int | None = number
        if is_initial and first != self._size[number]:
            self._give(start, number, _LESS)
            current = self._take(start, first, number, _LESS) if first else None
        elif not is_initial:
            self._size[number] = first
            if not first:
                self._not_taken.add(number)
                current = None
        for before, (at, _, size) in itertools.pairwise(life):
            when = _MORE if size > before[2] else _LESS
            if current is not None:
                self._give(at, current, when)
            current = self._take(at, size, number, when) if size else None
        if current is None:
            self._not_given.add(number)
        elif current != number:
            self._given_as[number] = current

    def add(self, start: int, end: int, size: int) -> None:
        """Request bytes that were not."""
        number = self._take(start, size, self._largest, _MORE)
        if end < len(self._moments):
            self._give(end, number, _LESS)

    def _take(self, moment: int, size: int, like: int, when: int) -> int:
        number = len(self._size)
        self._size.append(size)
        self._like.append(like)
        self._inserted.append((moment, when, TAKE, number))
        return number

    def _give(self, moment: int, number: int, when: int) -> None:
        self._inserted += [(moment, when, GIVE, number), (moment, when, COMPLETE, number)]

    def done(self) -> Edited:
        """Return the requests with all of it."""
        requests = self._requests
        kinds, numbers, events = (
            np.array(column, np.int64) for column in (requests.kind, requests.number, requests.event)
        )
        kept = self._kept(kinds, numbers)
        given_as = np.arange(len(requests.size))
        given_as[list(self._given_as)] = list(self._given_as.values())
        # Of other kinds the number is none of a request.
        frees = _are_frees(kinds)
        numbers[frees] = given_as[numbers[frees]]
        kinds, numbers, events = kinds[kept], numbers[kept], events[kept]
        inserted = sorted(self._inserted, key=lambda one: one[:2])
        moment, when, kind, number = np.array(inserted, np.int64).reshape(-1, 4).T
        row = self._moments.event[np.minimum(moment, len(self._moments) - 1)]
        place = np.where(
            when == _LESS, np.searchsorted(events, row, side="left"), np.searchsorted(events, row, side="right")
        )
        place = np.where(moment <= self._start, 0, place)
        like = np.array(self._like, np.int64)
        changed = dataclasses.replace(
            requests,
            size=np.array(self._size, np.int64),
            stream=requests.stream[like],
            row=requests.row[like],
            address=requests.address[like],
            kind=np.insert(kinds, place, kind).tolist(),
            number=np.insert(numbers, place, number).tolist(),
            event=np.insert(events, place, row).tolist(),
        )
        return Edited(requests=changed, num_before=int((moment <= self._start).sum()))

    def _kept(self, kinds: IntArray, numbers: IntArray) -> IntArray:
        """Return the recorded entries that stay."""
        not_taken = np.isin(numbers, list(self._not_taken)) & (kinds == TAKE)
        not_given = np.isin(numbers, list(self._not_given)) & _are_frees(kinds)
        return np.flatnonzero(~(not_taken | not_given))


def _are_frees(kinds: IntArray) -> npt.NDArray[np.bool_]:
    return np.isin(kinds, (GIVE, COMPLETE))
