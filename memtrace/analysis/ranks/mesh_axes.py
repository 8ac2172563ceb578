"""What the placement of a parameter says: the axes of its mesh, which are for data and which for tensor parallelism.

In: a text of the table owners. Out: `Axis`. A name tells what an axis is for. Where it has none, what FSDP2 gathers is
divided among data-parallel ranks, and tensor parallelism is the last axis of a mesh that divides twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

_AXIS = re.compile(r"(?:(\S+) )?(Replicate|Partial|Shard\(-?\d{1,4}\)|[A-Za-z_]\w*)(?: (\d{1,9}))? of (\d{1,9})")
_IS_DATA = re.compile(r"dp|data|fsdp|hsdp|ddp|shard|replicate|(?<![a-z])cp|context", re.IGNORECASE)
_IS_TENSOR = re.compile(r"tp|tensor|model", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of the mesh of ranks that a parameter lies over."""

    name: str | None
    is_shard: bool
    """Whether it divides the parameter; else every rank along it has a copy."""
    part: int | None
    """Which part this rank is, from 0."""
    size: int
    """Ranks along it."""
    is_tensor: bool
    """Whether it is for tensor parallelism rather than data parallelism."""
    is_named: bool
    """Whether its name says so."""


def axes_of(placement: str | None, *, gathers: bool) -> tuple[Axis, ...]:
    """Return the axes of a placement; none where it is not one. `gathers` says whether FSDP2 gathers parameters.

    >>> [(one.name, one.is_shard, one.part, one.size) for one in axes_of("dp Shard(0) 1 of 4", gathers=True)]
    [('dp', True, 1, 4)]
    >>> [one.is_tensor for one in axes_of("Shard(0) 0 of 2, Shard(0) 1 of 2", gathers=True)]
    [False, True]
    >>> [one.is_tensor for one in axes_of("Replicate 0 of 2, Shard(0) 1 of 2", gathers=True)]
    [False, False]
    """
    matches = [_AXIS.fullmatch(part) for part in (placement or "").split(", ")]
    shards = [match is not None and match[2].startswith("Shard") for match in matches]
    axes = []
    for at, match in enumerate(matches):
        if match is None:
            return ()
        name, _, part, size = match.groups()
        is_last_of_two = at == len(matches) - 1 and sum(shards) > 1 and shards[at]
        named_tensor = name is not None and _IS_TENSOR.search(name) is not None
        named_data = name is not None and not named_tensor and _IS_DATA.search(name) is not None
        axes.append(
            Axis(
                name=name,
                is_shard=shards[at],
                part=None if part is None else int(part),
                size=max(int(size), 1),
                is_tensor=named_tensor or (not named_data and (not gathers or is_last_of_two)),
                is_named=named_tensor or named_data,
            )
        )
    return tuple(axes)


def size_of(axes: Iterable[Axis]) -> int:
    """Return how many ranks some axes have together."""
    return math.prod(axis.size for axis in axes)
