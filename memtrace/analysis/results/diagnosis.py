"""What the diagnoses return: leaks and fragmentation. Frozen dataclasses; bytes are ints, what is not known is `None`.

`results` hands them on, so that there is one place to import result types from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """What of the program keeps bytes that nobody owns, as it was found while the program ran."""

    text: str
    """The way to them in words, as "list 'losses'"."""
    kind: str
    """variable, container, bounded, attribute, closure, traceback, context, cache, cycle or graph."""
    where: Mapping[str, Any] | None
    """file, line, function and module of what feeds it; the line is `None` where several do, or none was found."""
    num_bytes: int
    """Bytes among those that were asked about."""

    @property
    def fed_at(self) -> Mapping[str, Any] | None:
        """The line that feeds what keeps them, where it is known."""
        return None if self.where is None or self.where["line"] is None else self.where


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Bytes that pile up from step to step."""

    bytes_per_step: int
    """By how much they grow in a step, on average over `steps`."""
    allocations_per_step: int
    """Allocations that stay of each step, rounded up."""
    steps: tuple[int, ...]
    """The steps whose growth was looked at."""
    phase: str | None
    """Phase in which they are allocated; `None` outside any."""
    category: str
    """The category that most of their bytes are of."""
    num_modules: int
    """Modules in whose forward they are allocated; 0 where modules are not known."""
    cause: str
    """The usual cause, a guess: graph, outputs, gradients or container."""
    live_bytes: int
    """What has piled up at the end of the last recorded step, at this rate since step 1; no more than all grew."""
    first_bytes: int
    """What the first recorded step made of it; `live_bytes` counts what came after."""
    steps_until_full: int | None
    """More steps as the last one that the device has room for; `None` if its capacity is not known."""
    where: Mapping[str, Any] | None
    """file, line, function, module of the line under which they are allocated; without stacks that which feeds what
    keeps them; `None` where neither is known."""
    keeper: Keeper | None = None
    """What keeps them; `None` where that was not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """Bytes that a step left behind, and that the next one therefore has on top of its own."""

    what: str
    """A category, or `outputs`: what the model returned, and what was computed from it."""
    num_bytes: int
    """Bytes of it."""
    where: Mapping[str, Any] | None
    """file, line, function and module that made most of them; `None` where that was not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNeeds:
    """What a step needed, what it left behind, and what the next one needs for it."""

    step: int
    """Its number."""
    peak_bytes: int
    """Its own peak."""
    phase: str | None
    """Phase of that peak."""
    resident: tuple[Resident, ...]
    """What it made that is still live when the next forward begins, the largest first."""
    next_bytes: int
    """The peak of the next step if it does the same again: with what is resident already there from its start."""
    limited_by: str | None
    """Phase in which the next step needs that much."""
    is_cause: bool = True
    """Whether that explains a failure: what stays is a good part of the bytes that were missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """One pool of an allocator at a moment, all its streams together."""

    pool: str
    """large or small; of a private pool with its id, as "large of 1,0"."""
    num_segments: int
    """Segments of the pool."""
    reserved_bytes: int
    """Bytes of these segments."""
    allocated_bytes: int
    """Whole blocks in use."""
    pending_bytes: int
    """Blocks freed by the program but awaiting another stream."""
    requested_bytes: int | None
    """Of the allocated blocks what was asked for; `None` where the snapshot does not say."""
    free_bytes: int
    """Blocks that are free."""
    split_bytes: int
    """Free pieces of segments that are partly in use, which cannot be given back to the device: inactive splits."""
    largest_free_block_bytes: int
    """The largest of them; 0 if none is free."""

    @property
    def internal_bytes(self) -> int | None:
        """Internal fragmentation: rounding inside blocks in use."""
        return None if self.requested_bytes is None else self.allocated_bytes - self.requested_bytes

    @property
    def external_bytes(self) -> int:
        """External fragmentation: free bytes that a request of the largest free block's size leaves unused."""
        return self.free_bytes - self.largest_free_block_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FragmentationMoment:
    """All pools at a moment."""

    name: str
    """largest reserved, end of step, out of memory, or end."""
    step: int | None
    """The step that ends; `None` at other moments."""
    event: int | None
    """Row of the events table after which it holds; `None` for the final snapshot."""
    pools: tuple[PoolState, ...]
    """One entry a pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FragmentationResult:
    """How much of what was reserved could not be used, by pool and over time."""

    is_model: bool
    """Whether no such allocator ran: the requests of the CPU were put through the model of a GPU's."""
    moments: tuple[FragmentationMoment, ...]
    """One entry a moment that was looked at."""
    max_reserved_bytes: int | None
    """`None` without a history."""
    num_growths: int | None
    """Times that memory was taken from the device; `None` where the history cannot be followed."""
    num_fragmented_growths: int | None
    """Of these, times that as much was free in pieces of segments partly in use."""
    fragmented_bytes: int | None
    """Bytes that those took."""
    wasted_bytes: int | None
    """Of the largest reserved bytes those that fragmentation explains: idle in pieces, no more than it took, and not
    needed at any other moment."""
    where: Mapping[str, Any] | None
    """file, line, function and module that made the blocks between the free pieces at that moment."""
    requested_at: Mapping[str, Any] | None
    """The same of the requests for which memory was taken although enough was free in pieces."""
