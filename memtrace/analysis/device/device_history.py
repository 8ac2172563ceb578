"""Everything known about one device of one rank, built once: the common input of the questions of this package.

In: a rank and a device name. Out: `DeviceHistory`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.analysis.attribution.attribute import Attribution, attribute
from memtrace.analysis.attribution.shared_storages import split_shared
from memtrace.analysis.device.byte_levels import Levels, build_levels
from memtrace.analysis.events.blocks_known_by_owner import with_owned_blocks
from memtrace.analysis.events.evaluations import evaluation_stretches
from memtrace.analysis.events.innermost import Spans
from memtrace.analysis.events.lifetimes import Lifetimes, build_lifetimes
from memtrace.analysis.events.moments import Moments, build_moments
from memtrace.analysis.events.replayed_levels import Replayed, replay_history
from memtrace.schema.names import Action
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceHistory:
    """One device: its allocations, its levels over its moments, and the marks to place them by."""

    rank: RankTrace
    """The trace that it is part of."""
    device: str
    """As "cuda:0" or "cpu"."""
    moments: Moments
    """The clock: one moment an event."""
    lifetimes: Lifetimes
    """When each allocation began and ended."""
    attribution: Attribution
    """What each of them was for."""
    levels: Levels
    """Bytes at each moment."""
    replayed: Replayed | None
    """What the model of the caching allocator says; `None` where it does not apply."""
    phases: Spans
    """Which phase ran when."""
    scopes: Spans
    """Which module ran when."""
    evaluations: IntArray
    """Start and end of each stretch in which the program evaluated, Unix ns, a row each."""
    num_allocs: int
    """Allocs in the history."""
    has_history: bool
    """Whether the events are a history, not a leftover: a lone free_completed ends what began long before."""
    owns_marks: bool
    """Whether device figures in the marks (used, reserved, allocated) are of this device."""

    @property
    def is_cpu(self) -> bool:
        """Whether this is host memory, which has no segments."""
        return self.device == "cpu"

    @property
    def last_moment(self) -> int:
        """The moment after the last event."""
        return len(self.moments) - 1


def build_history(rank: RankTrace, device: str, *, owns_marks: bool) -> DeviceHistory:
    """Return all that a rank knows about one device."""
    moments = build_moments(rank, device)
    lifetimes = with_owned_blocks(rank, device, moments, build_lifetimes(rank, device, moments))
    lifetimes, attribution = split_shared(rank, lifetimes, attribute(rank, device, moments, lifetimes))
    replayed = replay_history(rank, device, moments)
    phases, scopes = (
        Spans.build(table["start_ns"], table["end_ns"]) for table in (rank.table("phases"), rank.table("scopes"))
    )
    num_allocs = int(np.count_nonzero(moments.is_action(rank, Action.ALLOC)))
    num_requests = int(np.count_nonzero(moments.is_action(rank, Action.FREE_REQUESTED)))
    num_frees = int(np.count_nonzero(moments.is_action(rank, Action.FREE_COMPLETED)))
    return DeviceHistory(
        rank=rank,
        device=device,
        moments=moments,
        lifetimes=lifetimes,
        attribution=attribution,
        levels=build_levels(
            rank,
            device,
            moments,
            lifetimes,
            attribution,
            owns_marks=owns_marks,
            replayed=None if replayed is None else replayed.allocated,
        ),
        replayed=replayed,
        phases=phases,
        scopes=scopes,
        evaluations=evaluation_stretches(rank, phases),
        num_allocs=num_allocs,
        has_history=num_allocs > 0 or num_requests > 0 or num_frees > 1,
        owns_marks=owns_marks,
    )


def device_names(rank: RankTrace) -> list[str]:
    """Return the devices with a history or segments, accelerators first, then by name."""
    ids: set[int] = set()
    for name in ("events", "segments", "initial_blocks"):
        ids.update(np.unique(rank.table(name)["device"]).tolist())
    names = [rank.strings[one] for one in ids if one != NULL]
    return sorted(names, key=lambda name: (name == "cpu", name.partition(":")[0], _index(name)))


def _index(device: str) -> int:
    index = device.partition(":")[2]
    return int(index) if index.isdigit() else 0
