"""What one rank exchanges with others: buckets of replicas, gathers of shards, collectives of a profile.

In: a rank. Out: `CommunicationResult`, `None` where nothing of the kind was recorded.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.communication.replicas import replica_results
from memtrace.analysis.results.communication import CollectiveBytes, CommunicationResult, ShardGroup
from memtrace.schema.names import Category
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_GATHER, _SCATTER = "all-gather of ", "reduce-scatter of "
"""How the hooks name the buffers of FSDP2."""


def communication_of_rank(rank: RankTrace) -> CommunicationResult | None:
    """Return what a rank exchanges with others."""
    replicas, (groups, num_steps), collectives = replica_results(rank), _shard_groups(rank), _collectives(rank)
    if not (replicas or groups or collectives):
        return None
    return CommunicationResult(
        replicas=replicas, shard_groups=groups, num_shard_steps=num_steps, collectives=collectives
    )


def _shard_groups(rank: RankTrace) -> tuple[tuple[ShardGroup, ...], int]:
    """Return the groups of FSDP2, and in how many steps they were gathered."""
    owners = rank.table("owners")
    of_communication = np.flatnonzero(owners["category"] == rank.string_id(Category.COMMUNICATION.value))
    buffers: dict[str, dict[str, IntArray]] = {_GATHER: {}, _SCATTER: {}}
    steps: set[int] = set()
    names, firsts = np.unique(owners["name"][of_communication], return_index=True)
    for name in names[np.argsort(firsts)].tolist():
        text = rank.text(name) or ""
        kind = next((kind for kind in buffers if text.startswith(kind)), None)
        if kind is not None:
            rows = of_communication[owners["name"][of_communication] == name]
            buffers[kind][text.removeprefix(kind)] = owners["size_bytes"][rows]
            steps.update(owners["step"][rows].tolist())
    gathers, scatters = buffers[_GATHER], buffers[_SCATTER]
    nothing = np.empty(0, np.int64)
    groups = (
        ShardGroup(
            name=name,
            gather_bytes=int(gathers[name].max()) if name in gathers else None,
            num_gathers=len(gathers.get(name, nothing)),
            scatter_bytes=int(scatters[name].max()) if name in scatters else None,
            num_scatters=len(scatters.get(name, nothing)),
        )
        for name in dict.fromkeys((*gathers, *scatters))
    )
    return tuple(groups), len(steps)


def _collectives(rank: RankTrace) -> tuple[CollectiveBytes, ...]:
    """Return what the communication kernels of a profile moved, by collective, group and dtype."""
    table = rank.table("collectives")
    if not len(table):
        return ()
    names = ("name", "group", "group_size", "dtype")
    keys = np.stack([table[name] for name in names], axis=1)
    found = []
    for key in np.unique(keys, axis=0):
        rows = np.flatnonzero((keys == key).all(axis=1))
        name, group, group_size, dtype = key.tolist()
        found.append(
            CollectiveBytes(
                name=rank.strings[name],
                group=rank.text(group),
                group_size=None if group_size == NULL else group_size,
                dtype=rank.text(dtype),
                num_kernels=len(rows),
                input_bytes=_total(table["input_bytes"][rows]),
                output_bytes=_total(table["output_bytes"][rows]),
                time_ns=int(np.maximum(table["duration_ns"][rows], 0).sum()),
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.time_ns, one.name, one.group or "")))


def _total(sizes: IntArray) -> int | None:
    """Return a sum of bytes; `None` where one of them is not known."""
    return None if np.any(sizes == NULL) else int(sizes.sum())
