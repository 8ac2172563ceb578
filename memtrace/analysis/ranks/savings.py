"""What is on several ranks and could be on one: what ZeRO's stages would save on each rank of this very run.

In: `Layout`. Out: `RankSaving`s. Source of the stages: Rajbhandari et al., arXiv 1910.02054; of how a tensor is cut:
FSDP2 (`FSDPParam._init_sharded_param`), along the first dimension into chunks of equal size, the last ones shorter or
empty. Parameters and gradients are padded to a whole chunk, states are not. What has no rows stays whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from memtrace.analysis.ranks.sharding import Layout, shards_of
from memtrace.analysis.results.ranks import IntArray, RankFacts, RankSaving
from memtrace.schema.shapes import parse_shape


def copies_of(layout: Layout, world_size: int | None) -> Mapping[str, int]:
    """Return for each parameter how many data-parallel ranks have the same of it.

    A parameter that every rank with facts has is taken to be on those without as well; of a lone rank only under DDP.
    """
    of_parameter: dict[str, int] = {}
    num_ranks = len(layout.facts)
    stands_for_all = num_ranks > 1 or any(one.uses_ddp for one in layout.facts.values())
    shapes: dict[str, str | None] = {}
    for rank, facts in layout.facts.items():
        for name, shape in zip(facts.names, facts.shapes, strict=True):
            axes = layout.axes[rank].get(name, ())
            if name not in shapes:
                held = layout.holders[name]
                holders = max(held, world_size or 0) if stands_for_all and held == num_ranks else held
                of_parameter[name] = max(holders // (layout.tensor_factor * shards_of(axes)), 1)
            elif not axes and shapes[name] != shape:
                # Parts of another tensor, whatever their name says.
                of_parameter[name] = 1
            shapes[name] = shape
    return of_parameter


def savings(layout: Layout, copies: Mapping[str, int]) -> tuple[RankSaving, ...]:
    """Return what each rank would hold less, were every copy shared out among those that have it."""
    if layout.is_opaque or max(copies.values(), default=1) < 2:
        return ()
    num_states = _holders_of_state(layout)
    places = _places(layout)
    return tuple(_saving(rank, facts, copies, num_states, places[rank]) for rank, facts in sorted(layout.facts.items()))


def _saving(
    rank: int, facts: RankFacts, copies: Mapping[str, int], num_states: Mapping[str, int], place: int
) -> RankSaving:
    rows = np.array([_rows(shape) for shape in facts.shapes], np.int64)
    of_each = np.array([copies[name] for name in facts.names], np.int64)
    # States that are shared out already have fewer holders than the parameter has copies.
    of_states = np.array([num_states.get(name, copies[name]) for name in facts.names], np.int64)
    chunk = -(-rows // of_each)
    own_rows = np.clip(rows - place % of_states * -(-rows // of_states), 0, -(-rows // of_states))
    return RankSaving(
        rank=rank,
        parameter_bytes=_saved(facts.parameter_bytes, rows, chunk),
        gradient_bytes=_saved(facts.gradient_bytes, rows, chunk),
        state_bytes=_saved(facts.row_state_bytes, rows, own_rows),
    )


@lru_cache(maxsize=4096)
def _rows(shape: str | None) -> int:
    """Return the first dimension, 0 where there is none."""
    return (parse_shape(shape) or (0,))[0]


def _saved(num_bytes: IntArray, rows: IntArray, kept_rows: IntArray) -> int:
    """Return the bytes of the rows that are not kept."""
    per_row = num_bytes // np.maximum(rows, 1)
    return int((per_row * (rows - kept_rows)).sum())


def _holders_of_state(layout: Layout) -> Mapping[str, int]:
    """Return how many ranks have states of a parameter, for those of which not all ranks that hold it have."""
    with_state: dict[str, int] = {}
    for facts in layout.facts.values():
        for name, num_bytes in zip(facts.names, facts.row_state_bytes.tolist(), strict=True):
            with_state[name] = with_state.get(name, 0) + (num_bytes > 0)
    # Where all holders have states, there are as many copies of them as of the parameter.
    return {name: max(held, 1) for name, held in with_state.items() if held < layout.holders[name]}


def _places(layout: Layout) -> Mapping[int, int]:
    """Return for each rank its number among the ranks that hold the same as it."""
    groups: dict[object, list[int]] = {}
    for rank, facts in sorted(layout.facts.items()):
        parts = {
            (axis.name, axis.part)
            for axes in layout.axes[rank].values()
            for axis in axes
            if axis.is_tensor or axis.is_shard
        }
        groups.setdefault((facts.names, frozenset(parts)), []).append(rank)
    # Where all ranks hold the same, those without a trace have their places too.
    if len(groups) == 1:
        return {rank: rank for rank in layout.facts}
    return {rank: place for group in groups.values() for place, rank in enumerate(group)}
