"""How many floating point operations a training step needs by arithmetic, from what was recorded of the model.

In: a rank and the tokens of a step. Out: `NeededFlops`, `None` where the arithmetic does not hold: 6 operations a token
for each parameter that every token is multiplied with, and 12 a token for each layer, hidden unit and position of the
sequence for attention scores (Chowdhery et al., PaLM, 2022, appendix B). What is recomputed counts once.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from memtrace.schema.names import Category
from memtrace.schema.shapes import parse_shape
from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace

_PER_PARAMETER, _PER_SCORE = 6, 12
_EMBEDDING = re.compile(r"Embedding")
_NOT_DENSE = re.compile(r"expert|\bmoe|router|cross_?att|encdec", re.IGNORECASE)
"""Modules in which not every token meets every parameter, or tokens of two sequences meet."""
_ATTENTION = re.compile(r"ScaledDotProduct")
_GATHER = "all-gather of "


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededFlops:
    """Operations of one step."""

    matmul_parameters: int
    matmul_flops: int
    attention_flops: int | None
    """`None` where no fused attention was seen: not counted."""
    shares_embedding: bool
    """Whether the output layer's weight is an embedding's."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    shape: tuple[int, ...]
    placement: str | None


def needed_flops(rank: RankTrace, step: int, tokens: int) -> NeededFlops | None:
    """Return the operations of a step through which so many tokens went."""
    classes = _classes(rank)
    parameters, with_gradient = _parameters(rank)
    if any(_NOT_DENSE.search(f"{path} {name}") for path, name in classes.items()) or _is_divided(rank, parameters):
        return None
    embeddings: dict[str, int] = {}
    matrices: dict[str, int] = {}
    for name, parameter in parameters.items():
        if len(parameter.shape) == 2:
            is_embedding = _EMBEDDING.search(classes.get(name.rpartition(".")[0], "")) is not None
            (embeddings if is_embedding else matrices)[name] = math.prod(parameter.shape)
    # A linear layer without a weight of its own uses one that an embedding owns.
    shares = any(name == "Linear" and f"{path}.weight" not in parameters for path, name in classes.items())
    count = sum(matrices.values()) + (max(embeddings.values(), default=0) if shares else 0)
    # A frozen parameter gets no gradient, and needs fewer operations.
    if not count or not matrices.keys() <= with_gradient:
        return None
    return NeededFlops(
        matmul_parameters=count,
        matmul_flops=_PER_PARAMETER * count * tokens,
        attention_flops=_attention_flops(rank, step),
        shares_embedding=shares,
    )


def _classes(rank: RankTrace) -> dict[str, str]:
    """Return the class of each module by its path."""
    scopes = rank.table("scopes")
    paths, firsts = np.unique(scopes["module"], return_index=True)
    names = scopes["class_name"][firsts]
    return {
        rank.text(path) or "": rank.text(name) or "" for path, name in zip(paths.tolist(), names.tolist(), strict=True)
    }


def _parameters(rank: RankTrace) -> tuple[dict[str, _Parameter], set[str]]:
    """Return the parameters by name, whole ones where a rank has a part, and the names of those with a gradient."""
    owners = rank.table("owners")
    is_parameter = owners["category"] == rank.string_id(Category.PARAMETER.value)
    is_gradient = owners["category"] == rank.string_id(Category.GRADIENT.value)
    _, firsts = np.unique(owners["name"][is_parameter], return_index=True)
    found = {}
    for row in np.flatnonzero(is_parameter)[firsts].tolist():
        whole = parse_shape(rank.text(int(owners["global_shape"][row])))
        shape = whole or parse_shape(rank.text(int(owners["shape"][row]))) or ()
        found[rank.text(int(owners["name"][row])) or ""] = _Parameter(shape, rank.text(int(owners["placement"][row])))
    return found, {rank.text(name) or "" for name in np.unique(owners["name"][is_gradient]).tolist()}


def _is_divided(rank: RankTrace, parameters: dict[str, _Parameter]) -> bool:
    """Return whether this rank may compute with parts of parameters only, as under tensor parallelism."""
    divided = [one.placement for one in parameters.values() if one.placement is not None and "Shard" in one.placement]
    names = np.unique(rank.table("owners")["name"]).tolist() if divided else []
    gathers = any((rank.text(name) or "").startswith(_GATHER) for name in names)
    return bool(divided) and (not gathers or any(one.count("Shard") > 1 for one in divided))


def _attention_flops(rank: RankTrace, step: int) -> int | None:
    """Return the operations of attention scores in a step, from what its kernels kept for backward."""
    saved, scopes = rank.table("saved"), rank.table("scopes")
    # What is checkpointed keeps nothing that could be counted.
    if np.any(scopes["recompute"]):
        return None
    kernels = [op for op in np.unique(saved["op"]).tolist() if _ATTENTION.match(rank.text(op) or "")]
    rows = np.flatnonzero((saved["step"] == step) & np.isin(saved["op"], kernels) & (saved["shape"] != NULL))
    shapes = [parse_shape(rank.text(shape)) or () for shape in saved["shape"][rows].tolist()]
    # Each call keeps queries (batch, heads, sequence, width) and one number a row of scores (batch, heads, sequence).
    queries = {shape for shape in shapes if len(shape) == 4}
    num_calls = sum(len(shape) == 3 for shape in shapes)
    if not num_calls or len({(batch, sequence, width) for batch, _, sequence, width in queries}) != 1:
        return None
    batch, heads, sequence, width = max(queries, key=lambda shape: shape[1])
    return _PER_SCORE * num_calls * batch * heads * sequence * sequence * width
