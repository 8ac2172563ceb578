"""Where an allocator took new memory although as much was free in pieces: external fragmentation as it happens.

In: a `Recording`. Out: `Pressure`: each segment that was taken, with what was free at that moment in the pool and on
the stream that needed it; and the model at chosen events. The requests go through the model once more: those of a GPU
from the recorded initial state, those of the CPU as if they had gone to a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memtrace.allocator.blocks import PENDING, Device, Pool
from memtrace.allocator.initial import build
from memtrace.allocator.model import Allocator
from memtrace.allocator.requests import COMPLETE, FLUSH, GIVE, TAKE
from memtrace.allocator.results import AllocatorState
from memtrace.allocator.sizes import SMALL_SIZE, rounding
from memtrace.allocator.state import state_of
from memtrace.allocator.whatif import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One time that memory was taken from the device for a request."""

    event: int
    """Row of the events table of the request; -1 for a block that was in use before the history."""
    block_bytes: int
    """The request, rounded to a block."""
    taken_bytes: int
    """What was taken from the device."""
    split_bytes: int
    """Free just before in pieces of segments that are partly in use, in the pool and on the stream of the request."""
    largest_piece_bytes: int
    """The largest of these pieces; 0 if there was none."""
    reserved_bytes: int
    """Reserved after it."""

    @property
    def was_fragmented(self) -> bool:
        """Whether what was free would have been enough in one piece.

        Segments that are free as a whole do not count: where memory is short they are given back, and taken anew.
        """
        return self.split_bytes >= self.block_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """How reserved memory grew."""

    growths: tuple[Growth, ...]
    max_reserved_bytes: int
    max_reserved_event: int
    """Row of the request at which it was first reached; -1 if at the start."""
    peak_allocated_bytes: int
    """Largest bytes of whole blocks in use, at whatever moment."""


def pressure_of(recording: Recording) -> Pressure:
    """Return how reserved memory grew in the course of a recording."""
    run = _Run(recording)
    run.to_the_end()
    return Pressure(
        growths=tuple(run.growths),
        max_reserved_bytes=run.max_reserved[0],
        max_reserved_event=run.max_reserved[1],
        peak_allocated_bytes=run.peak_allocated_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The model at one moment."""

    state: AllocatorState
    row_at: Mapping[int, int]
    """For the address of each block in use, the row of the events table of its request; -1 if it was in use before."""


def moments_after(recording: Recording, rows: Sequence[int]) -> list[Moment]:
    """Return the model after all events up to each of these rows of the events table, in their order."""
    run, found = _Run(recording), dict[int, Moment]()
    for row in sorted(set(rows)):
        run.to(row)
        found[row] = run.moment()
    return [found[row] for row in rows]


class _Run:
    """One pass of the requests through the model."""

    def __init__(self, recording: Recording) -> None:
        self.requests = recording.requests
        self.growths: list[Growth] = []
        self.max_reserved = (0, -1)
        self.peak_allocated_bytes = 0
        self._sizes = self.requests.size.tolist()
        self._streams = self.requests.stream.tolist()
        self._round = rounding(recording.settings)
        self._at: dict[int, int] = {}
        self._next = 0
        device = Device()
        if recording.initial is None:
            self.allocator = Allocator(recording.settings, device)
            for number in range(self.requests.num_initial):
                self._take(number, -1)
        else:
            self.allocator = build(recording.initial, recording.settings, device)
            device.used_bytes = self.allocator.reserved_bytes
            self._at = dict(enumerate(self.requests.address[: self.requests.num_initial].tolist()))
            self.max_reserved = (self.allocator.reserved_bytes, -1)
            self.peak_allocated_bytes = self.allocator.allocated_bytes

    def to_the_end(self) -> None:
        """Go through all that is left."""
        self._run(len(self.requests.kind))

    def to(self, row: int) -> None:
        """Go through what happened up to a row of the events table."""
        stop = self._next
        while stop < len(self.requests.event) and self.requests.event[stop] <= row:
            stop += 1
        self._run(stop)

    def moment(self) -> Moment:
        """Return what there is now."""
        rows = self.requests.row
        return Moment(
            state=state_of(self.allocator), row_at={address: int(rows[number]) for number, address in self._at.items()}
        )

    def _run(self, stop: int) -> None:
        requests = self.requests
        for at in range(self._next, stop):
            kind, number = requests.kind[at], requests.number[at]
            if kind == TAKE:
                self._take(number, requests.event[at])
            elif kind == FLUSH:
                self.allocator.empty_cache()
            elif number in self._at:
                if kind == GIVE:
                    self._give(number)
                elif kind == COMPLETE:
                    self._complete(number)
        self._next = stop

    def _take(self, number: int, event: int) -> None:
        allocator, requested, stream = self.allocator, self._sizes[number], self._streams[number]
        if requested <= 0:
            return
        size = self._round(requested)
        pool = allocator.small if size <= SMALL_SIZE else allocator.large
        block = allocator.find(pool, size, stream)
        if block is None:
            split, largest = _split(pool, stream)
            before = allocator.reserved_bytes
            taken = allocator.malloc(requested, stream)
            if taken is None:
                return
            self._at[number] = taken.address
            self._note(event, size, before, split, largest)
        else:
            self._at[number] = allocator.hand_out(block, size, requested).address
        if allocator.allocated_bytes > self.peak_allocated_bytes:
            self.peak_allocated_bytes = allocator.allocated_bytes

    def _note(self, event: int, size: int, before: int, split: int, largest: int) -> None:
        reserved = self.allocator.reserved_bytes
        self.growths.append(
            Growth(
                event=event,
                block_bytes=size,
                taken_bytes=reserved - before,
                split_bytes=split,
                largest_piece_bytes=largest,
                reserved_bytes=reserved,
            )
        )
        if reserved > self.max_reserved[0]:
            self.max_reserved = (reserved, event)

    def _give(self, number: int) -> None:
        address = self._at[number]
        # A damaged recording may free what its start does not know.
        if address in self.allocator.live:
            self.allocator.request_free(address)

    def _complete(self, number: int) -> None:
        address = self._at.pop(number)
        block = self.allocator.live.get(address)
        if block is not None and block.state == PENDING:
            self.allocator.complete_free(address)


def _split(pool: Pool, stream: int) -> tuple[int, int]:
    """Return the free bytes of a pool on a stream that are pieces of segments in use, and the largest piece."""
    pieces = [size for size, _, block in pool.free.get(stream) or () if not block.is_whole_segment]
    return sum(pieces), max(pieces, default=0)
