"""The same state on every rank: what ZeRO's three stages would leave of it.

In: `Case` of one of several ranks. Out: a `Finding`. Source: Rajbhandari et al., arXiv 1910.02054: stage 1 divides the
optimizer state by the number of ranks, stage 2 the gradients as well, stage 3 (FSDP) the parameters too, of which the
layer that runs and the next one are gathered. Communication: stages 1 and 2 send as much as plain data parallelism,
stage 3 half as much again.
"""

from __future__ import annotations

import math
import re

import numpy as np

from memtrace.analysis.advice.case import Case, Cut
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.first_step.steady_state import parameter_groups
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category
from memtrace.schema.shapes import parse_shape
from memtrace.store.columns import NULL
from memtrace.units import format_bytes

_SHARDED = (Category.OPTIMIZER_STATE, Category.GRADIENT, Category.PARAMETER)
"""What each stage shards in addition."""
_MOST_SHARE = 0.9
"""A rank that owns less than this part of the elements of its parameter groups owns a shard of them."""
_LAYER = re.compile(r"(?:.*?\.)?\d+(?=\.|$)")
"""A parameter's name up to the index of its layer."""
_IS_SHARDED = re.compile(r"_fsdp_wrapped_module|_flat_param")
_HOW = (
    "torch.distributed.optim.ZeroRedundancyOptimizer shards the states (ZeRO-1)",
    "ZeRO-2 the gradients too",
    "fully_shard (FSDP, ZeRO-3) the parameters as well",
)


def sharded_state(case: Case) -> Finding | None:
    """Return the advice to share out optimizer state, gradients and parameters, where every rank has all of them."""
    world_size = case.history.rank.header.get("world_size") or 1
    if world_size < 2 or _is_sharded(case):
        return None
    stages = [_new_peak(case, stage, world_size) for stage in (1, 2, 3)]
    helps = [stage for stage, peak in enumerate(stages, 1) if peak is not None]
    if not helps:
        return None
    first = helps[0]
    new_peak = stages[first - 1]
    assert new_peak is not None
    peaks = ", ".join(f"ZeRO-{stage} {format_bytes(stages[stage - 1])}" for stage in helps)
    return Finding(
        slug="state-on-every-rank",
        severity="info",
        title=f"Each of {world_size} ranks holds the same optimizer state, gradients and parameters",
        evidence={"world_size": world_size}
        | {f"zero_{stage}_new_peak_bytes": stages[stage - 1] for stage in helps}
        | {f"{one.value}_bytes": case.at_peak(case.cut(np.flatnonzero(case.is_category(one)))) for one in _SHARDED},
        change=f"{'; '.join(_HOW[first - 1 :])}. New peaks: {peaks}.",
        cost="ZeRO-1 and 2 send as much as plain data parallelism, ZeRO-3 half as much again.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, np.flatnonzero(case.is_category(_SHARDED[first - 1]))),
    )


def _is_sharded(case: Case) -> bool:
    """Return whether the ranks hold parts already: of parameters, or of the optimizer state."""
    rank, owners = case.history.rank, case.history.rank.table("owners")
    parameters = owners["category"] == rank.string_id(Category.PARAMETER.value)
    names = np.unique(owners["name"][parameters])
    if any(_IS_SHARDED.search(rank.text(name) or "") for name in names.tolist()):
        return True
    groups = parameter_groups(case.history)
    if any("ZeroRedundancy" in group.class_name for group in groups):
        return True
    # The parameter group of DTensors counts the elements of all ranks, of which this one owns a part.
    live = case.live_at_peak[case.is_category(Category.PARAMETER)[case.live_at_peak]]
    owner = case.history.attribution.owner_row[live]
    shapes = [parse_shape(rank.text(int(owners["shape"][row]))) or () for row in owner[owner != NULL].tolist()]
    return sum(map(math.prod, shapes)) < _MOST_SHARE * sum(group.num_parameters or 0 for group in groups)


def _new_peak(case: Case, stage: int, world_size: int) -> int | None:
    rows = np.flatnonzero(case.is_category(*_SHARDED[:stage]))
    sizes = case.lifetimes.size_bytes[rows]
    # The largest part is rounded up.
    return case.new_peak(case.cut(rows, sizes - -(-sizes // world_size)), *([_gathered(case)] if stage == 3 else []))


def _gathered(case: Case) -> Cut:
    """Return two of the largest layers as bytes in addition: the one that runs, and the one fetched ahead."""
    rank, owners = case.history.rank, case.history.rank.table("owners")
    rows = case.live_at_peak[case.is_category(Category.PARAMETER)[case.live_at_peak]]
    layers: dict[str, int] = {}
    for row, size in zip(rows.tolist(), case.lifetimes.size_bytes[rows].tolist(), strict=True):
        owner = int(case.history.attribution.owner_row[row])
        name = "" if owner == NULL else rank.text(int(owners["name"][owner])) or ""
        match = _LAYER.match(name)
        layer = match[0] if match else ""
        layers[layer] = layers.get(layer, 0) + size
    return Cut(
        start=np.zeros(1, np.int64),
        end=np.array([len(case.level)], np.int64),
        size_bytes=np.array([-2 * max(layers.values(), default=0)], np.int64),
    )
