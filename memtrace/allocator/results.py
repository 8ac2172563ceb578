"""What a replay and a what-if return: frozen dataclasses of plain ints and small arrays. Bytes are ints.

`None` is "not known" or "not recorded"; never 0 and never -1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """The first event at which the model did something else than the record says."""

    event: int
    """Row of the events table."""
    expected: str
    """What the model did."""
    recorded: str
    """What the record says."""
    cause: str
    """What may explain it."""

    def __str__(self) -> str:
        return f"event {self.event}: the model {self.expected}, the record {self.recorded}: {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How far the model reproduced a recording, address by address."""

    allocations: int
    """Allocs that were scored."""
    allocations_matched: int
    """Of these, those whose address was predicted; one that was used to infer an initial block does not count."""
    segment_events: int
    """segment_alloc, segment_free, segment_map and segment_unmap events that were scored."""
    segment_events_matched: int
    """Of these, those that the model made at the same place in the sequence and of the same size."""
    num_inferred_blocks: int
    """Blocks of the initial state whose size had to be inferred from an address that was recorded later."""
    first_divergence: Divergence | None
    """`None` if there was none."""
    replayable: bool
    """Whether the history could be replayed at all."""
    reason: str | None
    """Why it could not, or what part of it was not replayed; one sentence."""

    @property
    def is_exact(self) -> bool:
        """Whether every alloc that no inference used, and every segment event, was reproduced."""
        return self.replayable and self.first_divergence is None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockState:
    """One block at a moment."""

    address: int
    """Where it begins."""
    size_bytes: int
    """The whole block."""
    requested_bytes: int | None
    """What was asked for; `None` for a free block."""
    state: str
    """active_allocated, active_pending_free or inactive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentState:
    """One segment (of an expandable one, a mapped range) at a moment, and the blocks that tile it."""

    address: int
    """Where it begins."""
    size_bytes: int
    """All of it, in use or not."""
    stream: int
    """Handle of the stream that its blocks serve."""
    is_small: bool
    """Whether it serves requests of up to 1 MiB only."""
    pool_id: str
    """The pool that it belongs to, as torch writes it; "0,0" is the usual one."""
    is_expandable: bool
    """Whether it is a mapped range of an expandable segment."""
    blocks: tuple[BlockState, ...]
    """In the order of addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorState:
    """Segments, blocks and levels of one device at a moment."""

    segments: tuple[SegmentState, ...]
    """In the order of addresses."""
    allocated_bytes: int
    """Whole blocks in use."""
    active_bytes: int
    """Allocated, and freed but awaiting a stream."""
    reserved_bytes: int
    """All segments."""
    requested_bytes: int
    """Bytes asked for, over blocks in use."""
    largest_free_block_bytes: int
    """The largest request that needs no new memory (on the stream that has it); 0 if nothing is free."""
    inactive_split_bytes: int
    """Free pieces of segments that are partly in use: cannot be given back to the device."""
    num_free_blocks: int
    """Blocks that a request could get."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """One device's history in the model. Arrays hold the value after each event of `rows`; all are empty if it is not
    replayable."""

    device: str
    """The device whose history it is."""
    fidelity: Fidelity
    """How far the model reproduced it."""
    rows: IntArray
    """Rows of the events table that were replayed, ascending."""
    block_bytes: IntArray
    """Whole block of each alloc, free_requested and free_completed; 0 at other events."""
    allocated_bytes: IntArray
    """Whole blocks in use (active_allocated)."""
    active_bytes: IntArray
    """Allocated, and freed but awaiting a stream."""
    reserved_bytes: IntArray
    """All segments."""
    unsure_bytes: IntArray
    """By how much `allocated_bytes` (and active) may be larger at most; 0 where they are exact. It is what remainders
    of blocks that were in use before the history can amount to, where no event shows them."""
    unsure_start_bytes: int
    """The same before the first event."""
    num_unsure_blocks: int
    """Blocks whose remainder no event ever showed."""
    start: AllocatorState | None
    """State before the first of these events; `None` if it is not replayable."""
    end: AllocatorState | None
    """State after the last one, as the model has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedOom:
    """The first request that failed in a what-if."""

    event: int
    """Row of the events table of the request."""
    request_bytes: int
    """What was asked for."""
    segment_bytes: int
    """What the driver was asked for."""
    reserved_bytes: int
    """Reserved at that moment, after everything unused was given back."""
    allocated_bytes: int
    """Whole blocks in use at that moment."""
    num_alloc_retries: int
    """Retries up to and including this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfRow:
    """What one configuration would have done with the requests of a recording."""

    name: str
    """What was changed, in words; "baseline" where nothing was."""
    peak_allocated_bytes: int
    """Largest bytes of whole blocks in use."""
    max_reserved_bytes: int
    """Largest bytes of all segments."""
    peak_requested_bytes: int
    """Largest bytes asked for, over blocks in use."""
    num_device_mallocs: int
    """Segments taken from the device, or times that memory was mapped, during the history."""
    num_alloc_retries: int
    """Times that a request failed, everything unused was given back, and it was tried again."""
    fits: bool
    """Whether no request failed."""
    oom: SimulatedOom | None
    """The first failure."""
    capacity_bytes: int | None = None
    """Memory that the allocator could reserve; `None` is as much as it asked for, or what the device had."""
    is_model: bool = True
    """Whether segment addresses were invented, so that ties between equal free blocks may fall otherwise."""

    @property
    def wasted_bytes(self) -> int:
        """Largest reserved less largest allocated bytes."""
        return self.max_reserved_bytes - self.peak_allocated_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A recording under several configurations; the first row is the recording itself."""

    rank: int | None
    """Global rank; `None` outside a distributed run."""
    device: str
    """The device whose requests were replayed."""
    fidelity: Fidelity
    """How far the model reproduces the recording itself."""
    rows: tuple[WhatIfRow, ...]
    """A row a configuration, in the order in which they were asked for."""
    advice: str | None
    """What to set for this trace, with its number; `None` if nothing was tried or nothing helps."""
