"""What-if: the requests of a recording under another setting, capacity or size, through the model.

In: a rank, a device, and `Change`s. Out: `WhatIf`: the recording itself as the first row, then one row a change.

Under the recording's own settings and sizes a change starts from the recorded initial state; under others nobody knows
what the initial state would have been, so its blocks are requested anew, in the order of their addresses. The addresses
of new segments are invented, and decide ties between equal free blocks: a row is a model, not a proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memtrace.allocator.blocks import PENDING, Device
from memtrace.allocator.history import (
    ALLOC,
    FREE_REQUESTED,
    NO_SEGMENTS,
    ON_CPU,
    OOM,
    SEGMENT_ALLOC,
    SEGMENT_MAP,
    SEGMENT_UNMAP,
    History,
    read_history,
)
from memtrace.allocator.initial import Initial, build
from memtrace.allocator.model import Allocator
from memtrace.allocator.replay import Prepared, prepare, replay_prepared
from memtrace.allocator.requests import COMPLETE, FLUSH, GIVE, TAKE, Requests, read_requests
from memtrace.allocator.results import IntArray, Replay, SimulatedOom, WhatIf, WhatIfRow
from memtrace.allocator.settings import Settings, parse_settings
from memtrace.allocator.sizes import round_size, segment_size
from memtrace.errors import MemtraceError
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace
from memtrace.units import format_bytes

BASELINE = "baseline"
MODELLED = "baseline, blocks in use at the start requested anew"
STANDARD_SETTINGS = (
    "expandable_segments:True",
    "max_split_size_mb:64",
    "max_split_size_mb:128",
    "max_split_size_mb:256",
    "max_split_size_mb:512",
    "roundup_power2_divisions:4",
    "roundup_power2_divisions:8",
)
"""What `--advise` tries."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Change:
    """One thing to try."""

    name: str
    settings: Settings | None = None
    """Allocator settings in place of the recording's."""
    capacity_bytes: int | None = None
    """Memory that the allocator can reserve; `None` is as much as it asks for."""
    sizes: IntArray | None = None
    """Bytes of each request in place of the recorded ones; 0 leaves a request out."""
    requests: Requests | None = None
    """Requests in place of the recorded ones, in the same use before the history; `sizes` then counts these."""
    num_before: int = 0
    """Of `requests`, entries at the front that change what was in use before the history: no level before counts."""
    empties_cache: bool = False
    """Whether the cache is emptied at the end of each step."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """A device's recording, ready to be tried under changes."""

    rank: RankTrace
    history: History
    requests: Requests
    settings: Settings
    initial: Initial | None
    """`None` where there are no segments, and the initial state is only a list of blocks."""
    replay: Replay


def read_recording(rank: RankTrace, device: str, *, as_cuda: bool = False) -> Recording:
    """Return a device's recording; with `as_cuda` one without segments (of the CPU, or a profile), as if its requests
    had gone to a GPU's allocator.

    Raises:
        MemtraceError: there is nothing to try.
    """
    prepared = prepare(rank, device)
    replay = replay_prepared(prepared)
    if isinstance(prepared, Prepared):
        return replayed_recording(rank, prepared, replay)
    history = read_history(rank, device)
    only_requests = history.problem in (ON_CPU, NO_SEGMENTS)
    if not (as_cuda and only_requests):
        hint = "to put its requests through the model of a GPU's allocator: --as cuda" if only_requests else None
        raise MemtraceError(f"{device}: {replay.fidelity.reason}", hint=hint, slug="not-replayable")
    requests = read_requests(rank, history, None)
    return Recording(rank=rank, history=history, requests=requests, settings=Settings(), initial=None, replay=replay)


def replayed_recording(rank: RankTrace, prepared: Prepared, replay: Replay) -> Recording:
    """Return the recording of a device that was replayed.

    Raises:
        MemtraceError: it could not be.
    """
    if not replay.fidelity.replayable:
        raise MemtraceError(f"{replay.device}: {replay.fidelity.reason}", slug="not-replayable")
    return Recording(
        rank=rank,
        history=prepared.history,
        requests=read_requests(rank, prepared.history, prepared.initial),
        settings=prepared.settings,
        initial=prepared.initial,
        replay=replay,
    )


def what_if(recording: Recording, changes: Sequence[Change], *, advise: bool = False) -> WhatIf:
    """Return what each change would have made of a recording; `advise` tries the standard settings as well."""
    rows = [_baseline(recording)]
    changes = list(changes)
    if advise:
        changes += [Change(name=text, settings=parse_settings(text)) for text in STANDARD_SETTINGS]
    needs_reference = recording.initial is not None and recording.requests.num_initial > 0
    if needs_reference and any(not _keeps_state(recording, change) for change in changes):
        # What the other rows are to be compared with: they start as tidily as this one.
        rows.append(_run(recording, Change(name=MODELLED), start_anew=True))
    rows += [_run(recording, change, start_anew=not _starts_as_recorded(recording, change)) for change in changes]
    return WhatIf(
        rank=recording.rank.rank,
        device=recording.history.device,
        fidelity=recording.replay.fidelity,
        rows=tuple(rows),
        advice=_advice(rows) if advise else None,
    )


def _keeps_state(recording: Recording, change: Change) -> bool:
    """Return whether a change can start from the recorded initial state."""
    same = change.settings is None or change.settings == recording.settings
    return same and change.sizes is None and recording.initial is not None


def _starts_as_recorded(recording: Recording, change: Change) -> bool:
    """Return whether a change starts from the recorded initial state: if that is possible, and within the capacity."""
    start, capacity = recording.replay.start, change.capacity_bytes
    fits = start is None or capacity is None or start.reserved_bytes <= capacity
    return fits and _keeps_state(recording, change)


def _baseline(recording: Recording) -> WhatIfRow:
    """Return the recording itself: every number is recorded, or follows from the exact replay."""
    if recording.initial is None:
        return _run(recording, Change(name=BASELINE), start_anew=True)
    replay, history = recording.replay, recording.history
    assert replay.start is not None
    action, grows = history.action, (history.action == SEGMENT_ALLOC) | (history.action == SEGMENT_MAP)
    shrinks = (action > SEGMENT_MAP) & (action <= SEGMENT_UNMAP)
    # A run of events that give memory back, directly before more is taken or an OOM, is taken for a retry.
    after = np.append(action[1:], -1)
    retries = shrinks & ((after == SEGMENT_ALLOC) | (after == SEGMENT_MAP) | (after == OOM))
    ooms = np.flatnonzero(action == OOM)
    requested = replay.start.requested_bytes + np.cumsum(_requested_deltas(history))
    return WhatIfRow(
        name=BASELINE,
        peak_allocated_bytes=max(replay.start.allocated_bytes, int(replay.allocated_bytes.max(initial=0))),
        max_reserved_bytes=max(replay.start.reserved_bytes, int(replay.reserved_bytes.max(initial=0))),
        peak_requested_bytes=max(replay.start.requested_bytes, int(requested.max(initial=0))),
        num_device_mallocs=int(grows.sum()),
        num_alloc_retries=int(retries.sum()),
        fits=not len(ooms),
        oom=_recorded_oom(recording, int(ooms[0]), int(retries[: ooms[0]].sum())) if len(ooms) else None,
        is_model=False,
    )


def _requested_deltas(history: History) -> IntArray:
    deltas: IntArray = history.size * ((history.action == ALLOC) * 1 - (history.action == FREE_REQUESTED) * 1)
    return deltas


def _recorded_oom(recording: Recording, at: int, num_retries: int) -> SimulatedOom:
    size = int(recording.history.size[at])
    return SimulatedOom(
        event=int(recording.history.rows[at]),
        request_bytes=size,
        segment_bytes=segment_size(size, recording.settings),
        reserved_bytes=int(recording.replay.reserved_bytes[at]),
        allocated_bytes=int(recording.replay.allocated_bytes[at]),
        num_alloc_retries=num_retries,
    )


def _run(recording: Recording, change: Change, *, start_anew: bool) -> WhatIfRow:
    """Return what the model makes of the requests under a change."""
    settings = change.settings or recording.settings
    device = Device(change.capacity_bytes)
    run = _Run(recording, change, settings)
    if start_anew or recording.initial is None:
        run.start_anew(Allocator(settings, device, total_bytes=change.capacity_bytes))
    else:
        run.start_from(recording.initial, device)
    run.change_start()
    if run.oom is None:
        run.all()
    return run.row()


class _Run:
    """One simulation: which block each request got, and the largest levels so far."""

    def __init__(self, recording: Recording, change: Change, settings: Settings) -> None:
        self.requests = change.requests or recording.requests
        self.change = change
        self.settings = settings
        self.sizes = (self.requests.size if change.sizes is None else change.sizes).tolist()
        self.streams = self.requests.stream.tolist()
        self.at: dict[int, int] = {}
        """Address of each request in use."""
        self.oom: SimulatedOom | None = None
        self.peaks = (0, 0, 0)
        """Largest allocated, reserved and requested bytes."""
        self._requested = 0
        self._mallocs_before = 0
        self._step_ends = step_ends(recording) if change.empties_cache else []

    def start_anew(self, allocator: Allocator) -> None:
        """Request the blocks that were in use at the start."""
        self.allocator = allocator
        for number in range(self.requests.num_initial):
            if self.oom is None:
                self.take(number, event=-1)
        for number in np.flatnonzero(self.requests.is_pending).tolist():
            if number in self.at:
                self.give(number)
        self._mallocs_before = allocator.num_device_mallocs

    def start_from(self, initial: Initial, device: Device) -> None:
        """Start from the recorded state."""
        self.allocator = build(initial, self.settings, device)
        device.used_bytes = self.allocator.reserved_bytes
        self.at = dict(enumerate(self.requests.address[: self.requests.num_initial].tolist()))
        in_use = self.requests.size[: self.requests.num_initial] * (1 - self.requests.is_pending)
        self._requested = int(in_use.sum())
        self._note_peak()

    def change_start(self) -> None:
        """Change what is in use before the history, where that is asked for: the peaks begin after it."""
        if self.change.num_before and self.oom is None:
            self._go_through(0, self.change.num_before)
            self.peaks = (0, 0, 0)
            self._note_peak()

    def all(self) -> None:
        """Go through everything that happened, up to the first request that fails."""
        self._go_through(self.change.num_before, len(self.requests.kind))

    def _go_through(self, first: int, stop: int) -> None:
        requests = self.requests
        columns = (column[first:stop] for column in (requests.kind, requests.number, requests.event))
        for kind, number, event in zip(*columns, strict=True):
            if kind == TAKE:
                while self._step_ends and self._step_ends[0] < event:
                    self._step_ends.pop(0)
                    self.allocator.empty_cache()
                self.take(number, event)
                if self.oom is not None:
                    return
            elif kind == FLUSH:
                self.allocator.empty_cache()
            elif number in self.at:
                if kind == GIVE:
                    self.give(number)
                elif kind == COMPLETE:
                    self.complete(number)

    def take(self, number: int, event: int) -> None:
        """Make a request, at a row of the events table."""
        size = self.sizes[number]
        if size <= 0:
            return
        block = self.allocator.malloc(size, self.streams[number])
        if block is None:
            self.oom = self._failed(event, size)
            return
        self.at[number] = block.address
        self._requested += size
        self._note_peak()

    def give(self, number: int) -> None:
        """Ask for the free of a request."""
        self.allocator.request_free(self.at[number])
        self._requested -= self.sizes[number]

    def complete(self, number: int) -> None:
        """Complete the free of a request, unless a flush has done so."""
        address = self.at.pop(number)
        block = self.allocator.live.get(address)
        if block is not None and block.state == PENDING:
            self.allocator.complete_free(address)

    def row(self) -> WhatIfRow:
        """Return what came of it."""
        allocator = self.allocator
        return WhatIfRow(
            name=self.change.name,
            peak_allocated_bytes=self.peaks[0],
            max_reserved_bytes=self.peaks[1],
            peak_requested_bytes=self.peaks[2],
            num_device_mallocs=allocator.num_device_mallocs - self._mallocs_before,
            num_alloc_retries=allocator.num_alloc_retries,
            fits=self.oom is None,
            oom=self.oom,
            capacity_bytes=self.change.capacity_bytes,
        )

    def _note_peak(self) -> None:
        allocator, (allocated, reserved, requested) = self.allocator, self.peaks
        self.peaks = (
            max(allocated, allocator.allocated_bytes),
            max(reserved, allocator.reserved_bytes),
            max(requested, self._requested),
        )

    def _failed(self, event: int, size: int) -> SimulatedOom:
        return SimulatedOom(
            event=event,
            request_bytes=size,
            segment_bytes=segment_size(round_size(size, self.settings), self.settings),
            reserved_bytes=self.allocator.reserved_bytes,
            allocated_bytes=self.allocator.allocated_bytes,
            num_alloc_retries=self.allocator.num_alloc_retries,
        )


def step_ends(recording: Recording) -> list[int]:
    """Return the rows of the last event of each step: as recorded, else as the optimizer's ranges tell.

    Raises:
        MemtraceError: the recording knows no steps.
    """
    rank, rows = recording.rank, recording.history.rows
    steps, annotations = rank.table("steps"), rank.table("annotations")
    ends = steps["end_ns"][(steps["end_ns"] != NULL) & (steps["step"] > 0)]
    if not len(ends):
        ours = [at for at, name in enumerate(annotations["name"].tolist()) if _is_step(rank.text(name))]
        ends = annotations["end_ns"][ours]
        ends = ends[ends != NULL]
    if not len(ends):
        raise MemtraceError("the recording knows no steps", hint="record it with memtrace, or leave that option out")
    times = rank.table("events")["time_ns"][rows]
    found = np.searchsorted(times, np.sort(ends), side="right") - 1
    return [int(rows[at]) for at in found.tolist() if 0 <= at < len(rows) - 1]


def _is_step(name: str | None) -> bool:
    return name is not None and name.startswith("Optimizer.step")


def _advice(rows: Sequence[WhatIfRow]) -> str:
    """Return which setting reserves least, and how much less than the recording's own."""
    reference = next((row for row in rows if row.name == MODELLED), rows[0])
    tried = [row for row in rows if row.name in STANDARD_SETTINGS and row.fits]
    best = min(tried, key=lambda row: (row.max_reserved_bytes, row.num_device_mallocs), default=None)
    # Half a percent is within what ties between equal blocks can do, and not worth a setting.
    if best is None or best.max_reserved_bytes > reference.max_reserved_bytes * 0.995:
        return "No standard setting reserves noticeably less for this recording."
    saved = reference.max_reserved_bytes - best.max_reserved_bytes
    return (
        f"Set PYTORCH_ALLOC_CONF={best.name}: this recording would reserve {format_bytes(saved)} less, at most "
        f"{format_bytes(best.max_reserved_bytes)} instead of {format_bytes(reference.max_reserved_bytes)}."
    )
