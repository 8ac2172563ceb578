"""The memory of one step over its moments, and what it would be if some modules were computed again in backward.

In: a rank, a device and the survey of its modules. Out: `StepModel`: the level, and for each module what it takes off
the level, and adds to it, from when until when.

    forward of a module     |f0 ... f1|                                     backward of it
    plain                    takes a b c, keeps a b  .......................  frees b, a
    computed again           takes a b c             (only what it was given)  takes a b c', frees b, a

    waits on the host       takes a b c, sends a b   .......................  fetches b, frees b, fetches a, frees a

Between the end of its forward and the moment before its backward, what it kept is not there. What it was given stays
until then, also where plain autograd would not keep it. Its backward then begins with the temporaries of a forward.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from memtrace.analysis.events.lifetimes import Lifetimes, build_lifetimes
from memtrace.analysis.events.moments import Moments, build_moments
from memtrace.errors import MemtraceError
from memtrace.forecast.fixing.survey import Call, Survey
from memtrace.schema.names import Phase
from memtrace.schema.predicted import FIRST_ALLOWANCE_ADDRESS
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

HOST_BYTES_S = 2.0e10
"""Bytes a second that PCIe 4 reaches between a GPU and pinned memory of its host."""
_HOST = "host:"
"""Before the name of a module whose activations wait on the host: no path of a module has a colon."""
_BLOCK = 512
_LEAST_SHARE = 2000
"""A module that keeps less than this part of the peak is not worth computing again."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One module that could be computed again, or wait on the host, over all its calls of the step."""

    name: str
    """Its path, after `_HOST` where it would wait on the host; `by_way` tells them apart."""
    class_name: str
    """Its class."""
    cost_s: float
    """Seconds that a step takes longer."""
    cuts: tuple[Span, ...]
    """What is away, and when."""
    adds: tuple[Span, ...]
    """What stays longer, and when."""
    spikes: tuple[Span, ...]
    """What the second forward needs beside what it keeps, just before its backward."""
    around: tuple[str, ...]
    """The candidates that hold it: one of them and it are not both chosen."""

    @property
    def kept_bytes(self) -> int:
        """Bytes that it keeps for backward."""
        return sum(cut.size_bytes for cut in self.cuts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepModel:
    """One step."""

    level: IntArray
    """Bytes after each moment of the step."""
    candidates: tuple[Candidate, ...]
    """Modules that could be computed again, by their first forward. Moments count from the step's first."""
    step_s: float | None
    """Seconds of the step."""
    other_peak_bytes: int
    """The largest level outside the step, which its candidates say nothing of."""

    @property
    def peak_bytes(self) -> int:
        """The largest level of the step."""
        return int(self.level.max())

    def level_with(self, chosen: Sequence[str]) -> IntArray:
        """Return the level if these candidates are computed again."""
        level = self.level.astype(np.int64, copy=True)
        for one in self.candidates:
            if one.name in chosen:
                for span, sign in [*((cut, -1) for cut in one.cuts), *((add, 1) for add in (*one.adds, *one.spikes))]:
                    level[span.start : span.end] += sign * span.size_bytes
        return level

    def cost_of(self, chosen: Sequence[str]) -> float:
        """Return the seconds that a step takes longer if these candidates are computed again."""
        return sum(one.cost_s for one in self.candidates if one.name in chosen)


def build_step_model(
    rank: RankTrace,
    device: str,
    survey: Survey,
    *,
    excluded: Sequence[str] = (),
    flat_optimizer: bool = False,
    same_costs: bool = False,
) -> StepModel:
    """Return the step with the largest peak of those that are whole, and what could be changed of it.

    `excluded` are modules that are left as they are; with `flat_optimizer` the optimizer is taken to make no
    temporaries; with `same_costs` modules of one class and place cost the same, as they do where time is measured.

    Raises:
        MemtraceError: no step is whole.
    """
    step = _Step(rank, device, survey)
    if flat_optimizer:
        step.flatten()
    model = step.model(set(excluded))
    return replace(model, candidates=_evened(model.candidates)) if same_costs else model


def with_host(model: StepModel) -> StepModel:
    """Return a model in which what modules keep may also wait on the host."""
    both = [
        replace(one, around=(*one.around, *(_HOST + outer for outer in (one.name, *one.around))))
        for one in model.candidates
    ]  # fmt: skip
    return replace(model, candidates=(*both, *map(_on_host, model.candidates)))


def by_way(chosen: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the modules of a choice that are computed again, and those that wait on the host.

    >>> by_way(("blocks.0", "host:blocks.1"))
    (('blocks.0',), ('blocks.1',))
    """
    again = tuple(name for name in chosen if not name.startswith(_HOST))
    return again, tuple(name.removeprefix(_HOST) for name in chosen if name.startswith(_HOST))


def _on_host(one: Candidate) -> Candidate:
    """Return a module whose activations wait on the host: there and back, and nothing is computed.

    They are fetched one by one as backward asks for them; here they are all counted from the moment of the first.
    """
    return replace(
        one,
        name=_HOST + one.name,
        cost_s=2 * one.kept_bytes / HOST_BYTES_S,
        adds=(),
        spikes=(),
        around=(one.name, *one.around, *(_HOST + outer for outer in one.around)),
    )


def _evened(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates with the cost of each the median of those like it: what is measured is noisy."""
    groups: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for one in candidates:
        groups[_likeness(one)].append(one.cost_s)
    return tuple(replace(one, cost_s=float(np.median(groups[_likeness(one)]))) for one in candidates)


def _likeness(one: Candidate) -> tuple[str, str, int]:
    return one.class_name, re.sub(r"\d+", "", one.name), one.kept_bytes


class _Step:
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

    def model(self, excluded: set[str]) -> StepModel:
        """Return the model."""
        level = self.level[self.first : self.last + 1]
        least = int(level.max()) // _LEAST_SHARE
        found: dict[str, list[tuple[Call, tuple[Span, Span | None, list[Span]]]]] = {}
        around: dict[str, set[str]] = defaultdict(set)
        for call, outer in _nested(self._calls()):
            around[call.name].update(outer)
            parts = self._parts(call)
            if parts is not None:
                found.setdefault(call.name, []).append((call, parts))
        candidates = [
            self._candidate(calls, around[name])
            for name, calls in found.items()
            if name not in excluded and name not in self.survey.refused
        ]
        candidates = [one for one in candidates if one.kept_bytes > least]
        names = {one.name for one in candidates}
        outside = np.concatenate([self.level[: self.first], self.level[self.last + 1 :], [0]])
        return StepModel(
            level=level,
            candidates=tuple(replace(one, around=tuple(sorted(names.intersection(one.around)))) for one in candidates),
            step_s=self.survey.step_s,
            other_peak_bytes=int(outside.max()),
        )

    def _calls(self) -> list[Call]:
        inside = [one for one in self.survey.calls if self.start_ns <= one.start_ns and one.end_ns <= self.end_ns]
        return sorted(inside, key=lambda one: (one.start_ns, -one.end_ns))

    def _candidate(self, calls: list[tuple[Call, tuple[Span, Span | None, list[Span]]]], around: set[str]) -> Candidate:
        shift = self.first
        return Candidate(
            name=calls[0][0].name,
            class_name=calls[0][0].class_name,
            cost_s=sum(call.cost_s for call, _ in calls),
            cuts=tuple(_shifted(cut, shift) for _, (cut, _, _) in calls),
            spikes=tuple(_shifted(spike, shift) for _, (_, spike, _) in calls if spike is not None),
            adds=tuple(_shifted(add, shift) for _, (_, _, adds) in calls for add in adds),
            around=tuple(around),
        )

    def _parts(self, call: Call) -> tuple[Span, Span | None, list[Span]] | None:
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
        return (
            cut,
            Span(start=again, end=first_free, size_bytes=spike) if spike > 0 else None,
            list(self._held(call, begin, end, last_free)),
        )

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


def _shifted(span: Span, shift: int) -> Span:
    return Span(start=span.start - shift, end=span.end - shift, size_bytes=span.size_bytes)


def _nested(calls: Sequence[Call]) -> Iterator[tuple[Call, tuple[str, ...]]]:
    """Yield calls in the order in which they began, each with the names of the calls around it."""
    around: list[Call] = []
    for call in calls:
        while around and around[-1].end_ns <= call.start_ns:
            around.pop()
        yield call, tuple(one.name for one in around)
        around.append(call)
