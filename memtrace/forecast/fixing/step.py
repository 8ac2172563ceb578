"""One step of a run, looked up: its level, what each call of a module keeps for backward, and from when until when.

In: a rank, a device and the survey of its modules. Out: `Step`, of which `step_model.py` makes what could be changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.events.lifetimes import Lifetimes, build_lifetimes
from memtrace.analysis.events.moments import Moments, build_moments
from memtrace.errors import MemtraceError
from memtrace.forecast.fixing.survey import Call, Survey
from memtrace.schema.names import Phase
from memtrace.schema.predicted import FIRST_ALLOWANCE_ADDRESS
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_BLOCK = 512
_LEAST_OUTPUT = 64
"""Where outputs are not known: one is at least this part of the largest that is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bytes for a stretch of moments."""

    start: int
    """First moment."""
    end: int
    """One past the last."""
    size_bytes: int
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What one call takes off the level, and adds to it, if it is computed again; moments count from the step's."""

    call: Call
    """The call."""
    cut: Span
    """What is away, and when."""
    spike: Span | None
    """What the second forward needs beside what it keeps, just before its backward."""
    adds: tuple[Span, ...]
    """What stays longer, and when."""
    rows: frozenset[int]
    """The storages that are away."""


class Step:
    """What is looked up again and again while a model is built."""

    def __init__(self, rank: RankTrace, device: str, survey: Survey) -> None:
        self.rank = rank
        self.survey = survey
        self.moments: Moments = build_moments(rank, device)
        lives: Lifetimes = build_lifetimes(rank, device, self.moments)
        sizes = lives.size_bytes
        if device != "cpu":
            sizes = -(-sizes // _BLOCK) * _BLOCK
        counted = lives.address < FIRST_ALLOWANCE_ADDRESS
        order = np.argsort(lives.start[counted], kind="stable")
        self.start, self.end = lives.start[counted][order], lives.in_use_end[counted][order]
        self.size, self.address = sizes[counted][order], lives.address[counted][order]
        self.level = _running(self.start, self.end, self.size, len(self.moments))
        self.first, self.last, self.start_ns, self.end_ns = self._largest_step()
        self.backwards = list(self._phases(Phase.BACKWARD))
        self._by_address: dict[int, list[int]] = defaultdict(list)
        for row, address in enumerate(self.address.tolist()):
            self._by_address[address].append(row)
        self.saved_ends = self._saved_ends()

    def _largest_step(self) -> tuple[int, int, int, int]:
        steps = self.rank.table("steps")
        whole = [
            (int(steps["step"][row]), int(steps["start_ns"][row]), int(steps["end_ns"][row]))
            for row in np.flatnonzero((steps["step"] > 0) & (steps["end_ns"] != NULL) & steps["recorded"])
        ]
        # The first step lacks the states of the optimizer.
        spans = [
            (self.moments.at_time(start), self.moments.at_time(end), start, end)
            for step, start, end in whole
            if step > 1 or len(whole) == 1
        ]
        if not spans:
            raise MemtraceError(
                "no whole step of training is in the recording, so nothing can be said of one",
                hint="let it train for three steps at least",
                slug="fix-nothing",
            )
        return max(spans, key=lambda one: int(self.level[one[0] : one[1] + 1].max()))

    def _phases(self, phase: Phase) -> Iterator[tuple[int, int]]:
        phases = self.rank.table("phases")
        for row in np.flatnonzero(phases["phase"] == self.rank.string_id(phase.value)):
            start, end = int(phases["start_ns"][row]), int(phases["end_ns"][row])
            if end != NULL and start >= self.start_ns and end <= self.end_ns:
                yield self.moments.at_time(start), self.moments.at_time(end)

    def _saved_ends(self) -> IntArray:
        """Return when backward freed what was made before it, in order."""
        ends = [np.empty(0, np.int64)]
        for begin, end in self.backwards:
            inside = (self.start > self.first) & (self.start <= begin) & (self.end > begin) & (self.end <= end)
            ends.append(self.end[inside])
        return np.unique(np.concatenate(ends))

    def flatten(self) -> None:
        """Take the temporaries of the optimizer off the level."""
        for begin, end in self._phases(Phase.OPTIMIZER):
            self.level[begin : end + 1] = np.minimum(self.level[begin : end + 1], self.level[[begin, end]].max())

    def calls(self) -> list[Call]:
        """Return the calls of the step, outer ones first."""
        inside = [one for one in self.survey.calls if self.start_ns <= one.start_ns and one.end_ns <= self.end_ns]
        return sorted(inside, key=lambda one: (one.start_ns, -one.end_ns))

    def part(self, call: Call) -> Part | None:
        """Return what a call takes off the level and what it adds to it; `None` if it keeps nothing for backward."""
        begin, end = self.moments.at_time(call.start_ns), self.moments.at_time(call.end_ns)
        backward = next((one for one in self.backwards if one[1] > end), None)
        if backward is None:
            return None
        born = np.arange(*np.searchsorted(self.start, [begin + 1, end + 1]))
        live = born[self.end[born] > end]
        dropped = live[(self.end[live] > backward[0]) & (self.end[live] <= backward[1])]
        dropped = self._without_outputs(dropped, call, end)
        if not len(dropped):
            return None
        first_free, last_free = int(self.end[dropped].min()), int(self.end[dropped].max())
        before = int(np.searchsorted(self.saved_ends, first_free))
        again = max(int(self.saved_ends[before - 1]) if before else 0, backward[0])
        kept = int(self.size[dropped].sum())
        if again <= end:
            return None
        cut = Span(start=end, end=again, size_bytes=kept)
        inside = _running(self.start[born], np.minimum(self.end[born], end + 1), self.size[born], end + 1, begin)
        spike = int(inside.max(initial=0)) - kept
        return Part(
            call=call,
            cut=self._from_first(cut),
            spike=self._from_first(Span(start=again, end=first_free, size_bytes=spike)) if spike > 0 else None,
            adds=tuple(map(self._from_first, self._held(call, begin, end, last_free))),
            rows=frozenset(dropped.tolist()),
        )

    def kept_longer(self, addresses: tuple[int, ...], part: Part, time_ns: int) -> Iterator[Span]:
        """Yield what stays until a call runs again, of storages made in it, if they are not computed again."""
        at = self.moments.at_time(time_ns)
        made_from = self.moments.at_time(part.call.start_ns)
        for address in addresses:
            row = self._row(address, at)
            if row is None or self.start[row] <= made_from:
                continue
            begin = part.cut.start if row in part.rows else max(int(self.end[row]) - self.first, 0)
            if begin < part.cut.end:
                yield Span(start=begin, end=part.cut.end, size_bytes=int(self.size[row]))

    def is_run_again(self, addresses: tuple[int, ...], part: Part, time_ns: int) -> bool:
        """Return whether a second run of a call reaches what made these storages: it ends at the last one needed."""
        at = self.moments.at_time(time_ns)
        rows = [row for address in addresses if (row := self._row(address, at)) is not None]
        last = max(int(self.start[row]) for row in part.rows)
        return not rows or min(int(self.start[row]) for row in rows) <= last

    def _from_first(self, span: Span) -> Span:
        return Span(start=span.start - self.first, end=span.end - self.first, size_bytes=span.size_bytes)

    def _without_outputs(self, rows: IntArray, call: Call, end: int) -> IntArray:
        if call.outputs is not None:
            outputs = {row for address in call.outputs if (row := self._row(address, end)) is not None}
            return rows[[row not in outputs for row in rows.tolist()]] if len(rows) else rows
        sizes = self.size[rows]
        large = np.flatnonzero(sizes * _LEAST_OUTPUT >= sizes.max(initial=0))
        return np.delete(rows, large[-1:])

    def _held(self, call: Call, begin: int, end: int, until: int) -> Iterator[Span]:
        """Yield what the module was given and what would otherwise be gone before its backward."""
        for address in call.inputs or ():
            row = self._row(address, begin)
            if row is not None and self.end[row] < until:
                yield Span(start=max(int(self.end[row]), end), end=until, size_bytes=int(self.size[row]))

    def _row(self, address: int, moment: int) -> int | None:
        rows = self._by_address.get(address, ())
        return next((row for row in reversed(rows) if self.start[row] <= moment < self.end[row]), None)


def _running(starts: IntArray, ends: IntArray, sizes: IntArray, stop: int, first: int = 0) -> IntArray:
    """Return the bytes live at each moment from `first` on, before `stop`."""
    changes = np.zeros(stop - first + 1, np.int64)
    np.add.at(changes, starts - first, sizes)
    np.add.at(changes, np.minimum(ends, stop) - first, -sizes)
    return np.cumsum(changes)[:-1]
