"""Exact numbers of parameters of a model, by part and by how tensor and expert parallelism divide them.

In: `ModelSpec`. Out: counts of elements. They equal what `transformers` builds, class by class
(tests/forecast/test_parameters.py builds the models on the meta device and compares).
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.forecast.model_spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Elements of one part of a model. The three add up to it."""

    split: int = 0
    """Elements that tensor parallelism divides: matrices, and biases of those cut by columns."""
    whole: int = 0
    """Elements that every tensor-parallel rank holds: norms, routers, biases of matrices cut by rows, positions."""
    experts: int = 0
    """Elements of routed experts, which expert parallelism divides, and tensor parallelism too."""

    @property
    def total(self) -> int:
        """All elements of the part."""
        return self.split + self.whole + self.experts

    def __add__(self, other: Part) -> Part:
        """Return both parts as one."""
        return Part(
            split=self.split + other.split, whole=self.whole + other.whole, experts=self.experts + other.experts
        )

    def times(self, number: int) -> Part:
        """Return so many of the part."""
        return Part(split=self.split * number, whole=self.whole * number, experts=self.experts * number)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParameters:
    """All parameters of a model."""

    embedding: Part
    """Tokens, positions and token types, their norm, and projections into the hidden width."""
    dense_layer: Part
    moe_layer: Part
    num_dense_layers: int
    num_moe_layers: int
    head: Part
    """Final norm and output head; without the head's matrix where it is the embedding's."""
    extra: int
    """Elements beyond the listed shapes, in the layers."""

    @property
    def layers(self) -> Part:
        """All layers together."""
        dense, moe = self.dense_layer.times(self.num_dense_layers), self.moe_layer.times(self.num_moe_layers)
        return dense + moe + Part(split=self.extra)

    @property
    def total(self) -> int:
        """Elements of the whole model, a shared matrix once."""
        return self.embedding.total + self.layers.total + self.head.total


def count_parameters(spec: ModelSpec) -> ModelParameters:
    """Return the parameters of a model by part.

    >>> gpt2 = ModelSpec(name="gpt2", num_layers=12, hidden=768, num_heads=12, num_kv_heads=12, head_dim=64, ffn=3072,
    ...                  vocabulary=50257, learned_positions=1024)
    >>> count_parameters(gpt2).total
    124439808
    """
    attention = _attention(spec) + Part(whole=spec.norms_per_layer * _norm(spec, spec.hidden))
    return ModelParameters(
        embedding=_embedding(spec),
        dense_layer=attention + _mlp(spec, spec.ffn),
        moe_layer=attention + _mixture(spec),
        num_dense_layers=spec.num_layers - spec.num_moe_layers,
        num_moe_layers=spec.num_moe_layers,
        head=_head(spec),
        extra=spec.extra_parameters,
    )


def num_parameters(spec: ModelSpec) -> int:
    """Return the number of parameters of a model, a shared matrix counted once."""
    return count_parameters(spec).total


def active_parameters(spec: ModelSpec) -> int:
    """Return the parameters that take part in the computation of one token: all but the experts it is not sent to."""
    if not spec.num_moe_layers:
        return num_parameters(spec)
    idle = spec.num_experts - spec.experts_per_token
    return num_parameters(spec) - spec.num_moe_layers * idle * _mlp(spec, spec.expert_ffn).total


def _embedding(spec: ModelSpec) -> Part:
    width = spec.embedding_dim or spec.hidden
    projection = spec.hidden * width if width != spec.hidden else 0
    rows = (spec.learned_positions + spec.token_types) * spec.hidden
    norm = _norm(spec, spec.hidden) if spec.has_embedding_norm else 0
    return Part(split=spec.vocabulary * width, whole=rows + norm + projection)


def _attention(spec: ModelSpec) -> Part:
    columns = spec.query_width + 2 * spec.kv_width
    qk_norm = {"none": 0, "head": 2 * spec.head_dim, "full": spec.query_width + spec.kv_width}[spec.qk_norm]
    return Part(
        split=spec.hidden * (columns + spec.query_width) + (columns if spec.has_qkv_bias else 0),
        whole=(spec.hidden if spec.has_out_bias else 0) + qk_norm,
    )


def _mlp(spec: ModelSpec, ffn: int) -> Part:
    """Return a plain MLP: one or two matrices in, one out."""
    columns = ffn * (2 if spec.gated else 1)
    biases = spec.has_mlp_bias
    return Part(split=spec.hidden * (columns + ffn) + (columns if biases else 0), whole=spec.hidden if biases else 0)


def _mixture(spec: ModelSpec) -> Part:
    """Return router, routed experts and the shared expert of a layer."""
    if not spec.num_experts:
        return Part()
    routed = Part(experts=spec.num_experts * _mlp(spec, spec.expert_ffn).total)
    shared = _mlp(spec, spec.shared_ffn) if spec.shared_ffn else Part()
    gate = spec.hidden if spec.has_shared_gate else 0
    return routed + shared + Part(whole=spec.hidden * spec.num_experts + gate)


def _head(spec: ModelSpec) -> Part:
    width = spec.embedding_dim or spec.hidden
    whole = _norm(spec, spec.hidden) if spec.has_final_norm else 0
    if width != spec.hidden:
        whole += spec.hidden * width
    if spec.has_head_transform:
        whole += spec.hidden * spec.hidden + spec.hidden + _norm(spec, spec.hidden)
    split = 0
    if spec.has_head:
        split = (0 if spec.tied else spec.vocabulary * width) + spec.num_head_biases * spec.vocabulary
    return Part(split=split, whole=whole)


def _norm(spec: ModelSpec, width: int) -> int:
    """Return the elements of one norm."""
    return width * (int(spec.has_norm_weight) + int(spec.has_norm_bias))
