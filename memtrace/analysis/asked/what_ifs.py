"""The what-ifs that somebody asks for, tried on every device of a trace that can be replayed.

In: `Trace`, `Asked`. Out: a `WhatIf` a rank and device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memtrace.allocator.results import WhatIf
from memtrace.allocator.settings import parse_settings
from memtrace.allocator.whatif import Change, Recording, read_recording, what_if
from memtrace.analysis.asked.remedies import remedied
from memtrace.analysis.each_rank import of_each_rank
from memtrace.analysis.what_if.recompute import recomputed
from memtrace.analysis.what_if.request_sizes import Edit, checked_category, edited_sizes
from memtrace.errors import MemtraceError
from memtrace.store.trace import LoadWarning, RankTrace, Trace
from memtrace.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to change. Sizes and recomputation apply to every row; each capacity is tried with each setting."""

    alloc_confs: tuple[str, ...] = ()
    """Allocator settings, as for PYTORCH_ALLOC_CONF."""
    capacities_bytes: tuple[int, ...] = ()
    """Memory that the allocator can reserve."""
    scale: tuple[str, ...] = ()
    """As "activation=0.5": requests of a category become so many times as large."""
    drop: tuple[str, ...] = ()
    """Categories whose requests are left out."""
    shard: tuple[str, ...] = ()
    """As "optimizer_state=8": of each request of a category the n-th part is kept."""
    recompute: str | None = None
    """selective or full: activations are checkpointed."""
    remedies: tuple[str, ...] = ()
    """Findings whose remedies are tried, a row each."""
    empties_cache: bool = False
    """Whether the cache is emptied at the end of each step."""
    as_cuda: bool = False
    """Whether a recording of the CPU goes through the model of a GPU's allocator."""
    advise: bool = False
    """Whether the standard settings are tried, and the best one is named."""


def try_what_ifs(trace: Trace, asked: Asked) -> tuple[list[WhatIf], list[LoadWarning]]:
    """Return what the changes make of each rank and device, and a warning for each rank that could not be analysed.

    Raises:
        MemtraceError: a change makes no sense, or no device can be replayed.
    """
    refused: list[MemtraceError] = []

    def of_rank(rank: RankTrace) -> list[WhatIf]:
        found: list[WhatIf] = []
        for device in _devices(rank, as_cuda=asked.as_cuda):
            try:
                found.append(_of_device(rank, device, asked))
            except MemtraceError as error:
                # Of several devices one may hold nothing to replay.
                refused.append(error)
        return found

    of_ranks, left_out = of_each_rank(trace, of_rank)
    results = [one for found in of_ranks for one in found]
    if not results:
        hint = "for a recording of the CPU, --as cuda"
        raise refused[0] if refused else MemtraceError("no memory of a GPU was recorded", hint=hint)
    return results, left_out


def _devices(rank: RankTrace, *, as_cuda: bool) -> list[str]:
    """Return the devices of a rank that have events: its GPUs, or the CPU where that is asked for."""
    ids = sorted({int(device) for device in rank.table("events")["device"].tolist()})
    names = sorted(name for name in map(rank.text, ids) if name)
    return [name for name in names if (name == "cpu") == as_cuda] or names


def _of_device(rank: RankTrace, device: str, asked: Asked) -> WhatIf:
    recording = read_recording(rank, device, as_cuda=asked.as_cuda)
    edits = [Edit.parse(text) for text in asked.scale]
    edits += [Edit(category=checked_category(name), factor=0.0) for name in asked.drop]
    edits += [Edit.parse(text, divide=True) for text in asked.shard]
    requests = recording.requests
    if asked.recompute is not None:
        requests = recomputed(rank, device, requests, asked.recompute)
    sizes = edited_sizes(rank, device, requests, edits) if edits else None
    names = _names(asked)
    changes = [
        Change(
            name=", ".join([*([conf] if conf else []), *([format_bytes(capacity)] if capacity else []), *names]),
            settings=parse_settings(conf) if conf is not None else None,
            capacity_bytes=capacity,
            sizes=sizes,
            requests=requests,
            empties_cache=asked.empties_cache,
        )
        for conf in asked.alloc_confs or (None,)
        for capacity in asked.capacities_bytes or (None,)
        if conf is not None or capacity is not None or names
    ]
    if asked.remedies:
        changes += _remedies(recording, device, asked.remedies)
    return what_if(recording, changes, advise=asked.advise)


def _remedies(recording: Recording, device: str, slugs: Sequence[str]) -> list[Change]:
    edited = remedied(recording.rank, device, recording.requests, slugs)
    return [
        Change(name=f"remedy of {slug}", requests=one.requests, num_before=one.num_before)
        for slug, one in zip(slugs, edited, strict=True)
    ]


def _names(asked: Asked) -> list[str]:
    """Return what is changed in every row, for the names of rows."""
    changed = {"scale": asked.scale, "drop": asked.drop, "shard": asked.shard}
    names = [f"{verb} {text}" for verb, texts in changed.items() for text in texts]
    names += [] if asked.recompute is None else [f"recompute {asked.recompute}"]
    return names + (["empty cache each step"] if asked.empties_cache else [])
