"""Every parameter tensor of a model: its shape, how often it occurs, and how parallelism divides it.

In: `ModelSpec`. Out: `ParameterTensor`s. Sums of elements, states that depend on a tensor's shape (Adafactor) or number
(the step count of AdamW), and shards rounded a tensor at a time (FSDP2) all follow from these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from memtrace.forecast.model.spec import ModelSpec

POSITION_SCORES = "position scores"
"""The table of learned scores by distance: it is looked up, not multiplied with."""


class Division(Enum):
    """How tensor and expert parallelism treat a tensor."""

    SPLIT = "split"
    """Tensor parallelism divides it: matrices, and biases of those cut by columns."""
    WHOLE = "whole"
    """Every tensor-parallel rank holds it: norms, routers, biases of matrices cut by rows, positions."""
    EXPERTS = "experts"
    """Expert parallelism divides it by experts, and tensor parallelism each expert."""


class Place(Enum):
    """Which part of the model a tensor belongs to."""

    EMBEDDING = "embedding"
    ENCODER_LAYER = "encoder layer"
    DENSE_LAYER = "dense layer"
    MOE_LAYER = "mixture-of-experts layer"
    HEAD = "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterTensor:
    """One parameter, or as many of one shape as there are layers of its kind."""

    name: str
    shape: tuple[int, ...]
    """As `torch.nn` stores it: rows are outputs."""
    division: Division
    place: Place
    copies: int = 1

    @property
    def numel(self) -> int:
        """Elements of one copy."""
        return math.prod(self.shape)


def parameter_tensors(spec: ModelSpec) -> list[ParameterTensor]:
    """Return the parameters of a model that have elements, a matrix that two modules share once.

    >>> two = ModelSpec(
    ...     name="x", num_layers=2, hidden=8, num_heads=2, num_kv_heads=2, head_dim=4, ffn=32, vocabulary=50
    ... )
    >>> [(one.name, one.shape, one.copies) for one in parameter_tensors(two) if "qkv" in one.name]
    [('attention.qkv.weight', (24, 8), 2), ('attention.qkv.bias', (24,), 2)]
    """
    dense, moe = spec.num_layers - spec.num_moe_layers, spec.num_moe_layers
    found = [*_embedding(spec), *_encoder(spec)]
    if dense:
        found += _placed([*_attention(spec), *_mlp(spec, "mlp", spec.ffn)], Place.DENSE_LAYER, dense)
    if moe:
        found += _placed([*_attention(spec), *_mixture(spec)], Place.MOE_LAYER, moe)
    # A feed-forward width of 0 is legal and makes weights without rows, which nothing can be divided by.
    return [one for one in (*found, *_head(spec)) if one.numel]


def _placed(tensors: list[ParameterTensor], place: Place, copies: int) -> list[ParameterTensor]:
    return [
        ParameterTensor(name=one.name, shape=one.shape, division=one.division, place=place, copies=copies)
        for one in tensors
    ]


def _one(name: str, *shape: int, division: Division, place: Place = Place.DENSE_LAYER) -> ParameterTensor:
    return ParameterTensor(name=name, shape=shape, division=division, place=place)


def _linear(name: str, rows: int, columns: int, *, has_bias: bool, by_rows: bool = False) -> Iterator[ParameterTensor]:
    """Yield weight and bias of a linear layer; cut by rows of its input, every rank has the whole bias."""
    yield _one(f"{name}.weight", rows, columns, division=Division.SPLIT)
    if has_bias:
        yield _one(f"{name}.bias", rows, division=Division.WHOLE if by_rows else Division.SPLIT)


def _norm(spec: ModelSpec, name: str, width: int, place: Place = Place.DENSE_LAYER) -> Iterator[ParameterTensor]:
    if spec.has_norm_weight:
        yield _one(f"{name}.weight", width, division=Division.WHOLE, place=place)
    if spec.has_norm_bias:
        yield _one(f"{name}.bias", width, division=Division.WHOLE, place=place)


def _embedding(spec: ModelSpec) -> Iterator[ParameterTensor]:
    place, width = Place.EMBEDDING, spec.embedding_dim or spec.hidden
    yield _one("embedding", spec.vocabulary, width, division=Division.SPLIT, place=place)
    for name, rows in (("positions", spec.learned_positions), ("token types", spec.token_types)):
        if rows:
            yield _one(name, rows, spec.hidden, division=Division.WHOLE, place=place)
    if width != spec.hidden:
        yield _one("embedding projection", spec.hidden, width, division=Division.WHOLE, place=place)
    if spec.has_embedding_norm:
        yield from _norm(spec, "embedding norm", spec.hidden, place)
    if spec.position_buckets and not spec.has_positions_each_layer:
        yield _one(POSITION_SCORES, spec.position_buckets, spec.num_heads, division=Division.SPLIT, place=place)


def _encoder(spec: ModelSpec) -> list[ParameterTensor]:
    """Return the encoder of a model that has one, but for the embedding that it shares with the decoder."""
    if spec.encoder is None:
        return []
    places = {Place.DENSE_LAYER: Place.ENCODER_LAYER, Place.HEAD: Place.EMBEDDING}
    return [
        replace(one, name=f"encoder {one.name}", place=places.get(one.place, one.place))
        for one in parameter_tensors(spec.encoder)
        if one.name != "embedding"
    ]


def _attention(spec: ModelSpec) -> Iterator[ParameterTensor]:
    """Yield the attention of a layer and all its norms."""
    for number in range(spec.norms_per_layer):
        yield from _norm(spec, f"norm {number + 1}", spec.hidden)
    yield from _latent(spec) if spec.kv_rank else _projections(spec)
    yield from _linear("attention.out", spec.hidden, spec.output_width, has_bias=spec.has_out_bias, by_rows=True)
    if spec.has_sinks:
        yield _one("attention.sinks", spec.num_heads, division=Division.SPLIT)
    widths = {"none": (), "head": (spec.head_dim, spec.head_dim), "full": (spec.query_width, spec.kv_width)}
    for name, width in zip(("query norm", "key norm"), widths[spec.qk_norm], strict=False):
        yield _one(name, width, division=Division.WHOLE)
    if spec.encoder is not None:
        for name in ("query", "key", "value", "out"):
            rows, columns = spec.query_width, spec.hidden
            rows, columns = (columns, rows) if name == "out" else (rows, columns)
            yield from _linear(f"cross attention.{name}", rows, columns, has_bias=spec.has_qkv_bias)
    if spec.has_positions_each_layer:
        yield _one(POSITION_SCORES, spec.position_buckets, spec.num_heads, division=Division.SPLIT)


def _projections(spec: ModelSpec) -> Iterator[ParameterTensor]:
    parts = {"query": spec.query_width, "key": spec.kv_width, "value": spec.value_width}
    if spec.has_fused_qkv:
        parts = {"qkv": sum(parts.values())}
    for name, rows in parts.items():
        yield from _linear(f"attention.{name}", rows, spec.hidden, has_bias=spec.has_qkv_bias)


def _latent(spec: ModelSpec) -> Iterator[ParameterTensor]:
    """Yield what compresses queries, and keys with values, their norms, and what makes heads of them.

    Every tensor-parallel rank compresses whole; all heads share the rotated part of the key.
    """
    if not spec.query_rank:
        yield from _linear("attention.query", spec.query_width, spec.hidden, has_bias=False)
    else:
        yield from _compressed(spec, "query", spec.query_rank, 0)
        yield from _linear("attention.query up", spec.query_width, spec.query_rank, has_bias=False)
    yield from _compressed(spec, "key value", spec.kv_rank, spec.rotated_dim)
    unrotated = spec.num_heads * (spec.head_dim - spec.rotated_dim)
    yield from _linear("attention.key value up", unrotated + spec.value_width, spec.kv_rank, has_bias=False)


def _compressed(spec: ModelSpec, name: str, rank: int, beside: int) -> Iterator[ParameterTensor]:
    yield _one(f"attention.{name} down.weight", rank + beside, spec.hidden, division=Division.WHOLE)
    if spec.has_qkv_bias:
        yield _one(f"attention.{name} down.bias", rank + beside, division=Division.WHOLE)
    yield _one(f"{name} norm", rank, division=Division.WHOLE)


def _mlp(spec: ModelSpec, name: str, ffn: int) -> Iterator[ParameterTensor]:
    """Yield a plain MLP: one or two matrices in, one out."""
    inward = (
        {"up": ffn} if not spec.gated else {"gate up": 2 * ffn} if spec.has_fused_gate else {"gate": ffn, "up": ffn}
    )
    for part, rows in inward.items():
        yield from _linear(f"{name}.{part}", rows, spec.hidden, has_bias=spec.has_mlp_bias)
    yield from _linear(f"{name}.down", spec.hidden, ffn, has_bias=spec.has_mlp_bias, by_rows=True)


def _mixture(spec: ModelSpec) -> Iterator[ParameterTensor]:
    """Yield router, routed experts (stacked, as `transformers` stores them) and the shared expert of a layer."""
    number, inward = spec.num_experts, spec.expert_ffn * (2 if spec.gated else 1)
    yield _one("router", number, spec.hidden, division=Division.WHOLE)
    yield _one("experts.gate up", number, inward, spec.hidden, division=Division.EXPERTS)
    yield _one("experts.down", number, spec.hidden, spec.expert_ffn, division=Division.EXPERTS)
    if spec.has_expert_bias:
        yield _one("router.bias", number, division=Division.WHOLE)
        yield _one("experts.gate up.bias", number, inward, division=Division.EXPERTS)
        yield _one("experts.down.bias", number, spec.hidden, division=Division.EXPERTS)
    if spec.shared_ffn:
        yield from _mlp(spec, "shared expert", spec.shared_ffn)
    if spec.has_shared_gate:
        yield _one("shared expert gate", 1, spec.hidden, division=Division.WHOLE)


def _head(spec: ModelSpec) -> Iterator[ParameterTensor]:
    place, width = Place.HEAD, spec.embedding_dim or spec.hidden
    if spec.has_final_norm:
        yield from _norm(spec, "final norm", spec.hidden, place)
    if width != spec.hidden:
        yield _one("head projection", width, spec.hidden, division=Division.WHOLE, place=place)
    if spec.has_head_transform:
        yield _one("head transform.weight", spec.hidden, spec.hidden, division=Division.WHOLE, place=place)
        yield _one("head transform.bias", spec.hidden, division=Division.WHOLE, place=place)
        yield from _norm(spec, "head transform norm", spec.hidden, place)
    if spec.has_head and not spec.tied:
        yield _one("head.weight", spec.vocabulary, width, division=Division.SPLIT, place=place)
    for _ in range(spec.num_head_biases if spec.has_head else 0):
        yield _one("head.bias", spec.vocabulary, division=Division.SPLIT, place=place)
