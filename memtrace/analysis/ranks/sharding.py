"""How the ranks of a run share the work: data, sharded data, tensor, sequence and pipeline parallelism, and what tells.

In: `RankFacts` by rank. Out: `Scheme`s. DDP's reducer, FSDP2's gathers and the placements of distributed tensors tell
for certain; names, shapes and classes only suggest, and the scheme says that it is inferred.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from memtrace.analysis.ranks.mesh_axes import Axis, axes_of, size_of
from memtrace.analysis.results.ranks import RankFacts, Scheme

_LAYER = re.compile(r"((?:.*?\.)?\d+)(?:\.|$)")
"""A parameter's name up to the index of its layer."""
_OPAQUE_NAME = re.compile(r"_fsdp_wrapped_module|_flat_param")
"""Names of the older FSDP, whose flat parameters look alike on every rank and are not."""
_OPAQUE_OPTIMIZER = re.compile(r"DeepSpeed|DistributedOptimizer|DistributedFusedAdam")
"""Optimizers that divide flat buffers among ranks, out of sight."""
_ZERO_OPTIMIZER = "ZeroRedundancyOptimizer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is common to the ranks with facts."""

    facts: Mapping[int, RankFacts]
    axes: Mapping[int, Mapping[str, tuple[Axis, ...]]]
    """By rank and name of the parameter; parameters that are no distributed tensors are absent."""
    tensor_factor: int
    """Ranks that tensor parallelism divides a layer over; 1 without it."""
    shard_factor: int
    """Ranks that FSDP2 divides a parameter over; 1 without it."""
    is_opaque: bool
    """Whether something divides parameters or states in a way that names and shapes do not show."""
    has_copies: bool
    """Whether a mesh has an axis along which what FSDP2 divides is copied."""
    holders: Mapping[str, int]
    """By name of the parameter, how many ranks with facts have it."""


def layout_of(facts: Mapping[int, RankFacts]) -> Layout:
    """Return what the placements of all parameters come to."""
    axes: dict[int, dict[str, tuple[Axis, ...]]] = {}
    every: set[tuple[Axis, ...]] = set()
    holders: Counter[str] = Counter()
    for rank, one in facts.items():
        known = {text: axes_of(text, gathers=_gathers(one)) for text in set(one.placements)}
        axes[rank] = {name: known[text] for name, text in zip(one.names, one.placements, strict=True) if known[text]}
        every |= set(known.values())
        holders.update(one.names)
    return Layout(
        facts=facts,
        axes=axes,
        has_copies=any(not axis.is_shard and not axis.is_tensor and axis.size > 1 for found in every for axis in found),
        tensor_factor=max((size_of(axis for axis in found if axis.is_tensor) for found in every), default=1),
        shard_factor=max((shards_of(found) for found in every), default=1),
        is_opaque=_has_flat_parameters(holders) or any(map(_is_opaque, facts.values())),
        holders=holders,
    )


def shards_of(axes: tuple[Axis, ...]) -> int:
    """Return over how many data-parallel ranks a parameter is divided."""
    return size_of(axis for axis in axes if axis.is_shard and not axis.is_tensor)


def schemes(layout: Layout, copies: int | None) -> tuple[Scheme, ...]:
    """Return how the ranks share the work; `copies` is on how many ranks the most-copied state is."""
    if not layout.facts:
        return ()
    return (*_data_parallel(layout, copies), *_tensor_parallel(layout), *_pipeline(layout))


def layer_of(name: str) -> str | None:
    """Return the part of a parameter's name that is its layer; `None` outside any.

    >>> layer_of("blocks.3.attn.weight"), layer_of("0.weight"), layer_of("tokens.weight")
    ('blocks.3', '0', None)
    """
    match = _LAYER.match(name)
    return match[1] if match else None


def _gathers(facts: RankFacts) -> bool:
    return facts.gathers_forward or facts.gathers_backward


def _is_opaque(facts: RankFacts) -> bool:
    divides_modules = bool(facts.parallel_classes) and not any(facts.placements)
    return divides_modules or any(_OPAQUE_OPTIMIZER.search(name) for name in facts.optimizers)


def _has_flat_parameters(names: Iterable[str]) -> bool:
    return any(_OPAQUE_NAME.search(name) for name in names)


def _data_parallel(layout: Layout, copies: int | None) -> Iterator[Scheme]:
    every = list(layout.facts.values())
    if layout.shard_factor > 1:
        yield _fsdp(layout)
    if _has_flat_parameters(layout.holders):
        how = "Parameters have the names of FSDP's flat parameters, which do not tell in how many parts they are."
        yield Scheme(kind="fsdp", name="FSDP (version 1)", stage=None, factor=None, how=how, inferred=True)
    elif (zero := _zero_1(layout)) is not None:
        yield zero
    if copies is None or copies < 2:
        return
    if any(one.uses_ddp for one in every):
        how = "DistributedDataParallel made its buckets; parameters have the same names and shapes on every rank."
        yield Scheme(kind="ddp", name="DDP", stage=None, factor=copies, how=how, inferred=False)
    elif layout.has_copies:
        how = "The mesh has an axis along which parameters are copied (hybrid sharding)."
        yield Scheme(kind="replicated", name="Copies of the shards", stage=None, factor=copies, how=how, inferred=False)
    else:
        some = "Some parameters" if layout.shard_factor > 1 else "Parameters"
        how = f"{some} have the same names and shapes on several ranks; nothing recorded says that they stay equal."
        yield Scheme(kind="replicated", name="Copies", stage=None, factor=copies, how=how, inferred=True)


def _fsdp(layout: Layout) -> Scheme:
    """Return the scheme of parameters that are divided among data-parallel ranks."""
    every = list(layout.facts.values())
    example = _example(layout, is_tensor=False)
    stage: int | None
    if any(one.gathers_backward for one in every):
        name, stage = "FSDP2, ZeRO-3", 3
        how = f"{example}; parameters are gathered for forward and again for backward."
    elif any(one.gathers_forward for one in every):
        has_step = any(one.step is not None for one in every)
        name, stage = ("FSDP2 without resharding after forward, ZeRO-2", 2) if has_step else ("FSDP2", None)
        how = f"{example}; parameters are gathered for forward and kept for backward."
    else:
        name, stage, how = "Distributed tensors", 3, f"{example}; no gathering was recorded."
    is_certain = any(map(_gathers, every))
    return Scheme(kind="fsdp", name=name, stage=stage, factor=layout.shard_factor, how=how, inferred=not is_certain)


def _example(layout: Layout, *, is_tensor: bool) -> str:
    """Return the largest of the parameters that are divided, as the beginning of a sentence."""
    for rank, axes in sorted(layout.axes.items()):
        facts = layout.facts[rank]
        for at in np.argsort(-facts.parameter_bytes, kind="stable").tolist():
            name = facts.names[at]
            if any(axis.is_shard and axis.size > 1 and axis.is_tensor == is_tensor for axis in axes.get(name, ())):
                shape, whole = facts.shapes[at], facts.global_shapes[at]
                return f"{name} is {shape} of {whole} on rank {rank} ({facts.placements[at]})"
    return "Parameters are divided"


def _zero_1(layout: Layout) -> Scheme | None:
    """Return the scheme of states that are divided while parameters are not, each state on one rank only."""
    ranks = list(layout.facts.values())
    if len(ranks) < 2 or any(one.names != ranks[0].names or any(one.placements) for one in ranks):
        return None
    has_state = np.array([one.row_state_bytes > 0 for one in ranks])
    is_told = any(_ZERO_OPTIMIZER in one.optimizers for one in ranks)
    if not has_state.any(axis=1).all() or has_state.sum(axis=0).max(initial=0) != 1:
        return None
    how = "Every rank has all parameters, and no state of the optimizer is on two ranks."
    return Scheme(kind="zero", name="ZeRO-1", stage=1, factor=len(ranks), how=how, inferred=not is_told)


def _tensor_parallel(layout: Layout) -> Iterator[Scheme]:
    every, factor = list(layout.facts.values()), layout.tensor_factor
    if factor > 1:
        how = f"{_example(layout, is_tensor=True)}; every rank computes with its part of the layer."
        tensor_axes = [axis for axes in layout.axes.values() for one in axes.values() for axis in one if axis.is_tensor]
        inferred = not any(axis.is_named for axis in tensor_axes)
        yield Scheme(kind="tp", name="Tensor parallelism", stage=None, factor=factor, how=how, inferred=inferred)
        if any(one.sequence_parts == factor for one in every):
            how = f"Norms keep 1/{factor} of the tokens that linear layers keep for backward."
            yield Scheme(kind="sp", name="Sequence parallelism", stage=None, factor=factor, how=how, inferred=True)
    elif classes := sorted({name for one in every for name in one.parallel_classes}):
        how = f"Modules are of the classes {', '.join(classes[:3])}."
        yield Scheme(kind="tp", name="Tensor parallelism", stage=None, factor=None, how=how, inferred=True)


def _pipeline(layout: Layout) -> Iterator[Scheme]:
    """Yield the scheme of ranks that have different layers."""
    all_names = {one.names for one in layout.facts.values()}
    stages = {frozenset(layer for name in names if (layer := layer_of(name))) for names in all_names}
    layers = [layer for stage in stages for layer in stage]
    if len(stages) > 1 and all(stages) and len(layers) == len(set(layers)):
        how = f"The ranks have {len(stages)} different sets of layers, none of which share any."
        yield Scheme(kind="pp", name="Pipeline", stage=None, factor=len(stages), how=how, inferred=True)
