"""Exact numbers of parameters of a model, by part and by how tensor and expert parallelism divide them.

In: `ModelSpec`. Out: counts of elements. They equal what `transformers` builds, class by class
(tests/forecast/test_parameters.py builds the models on the meta device and compares).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from memtrace.forecast.model.adapters import Adapter, trained_tensors
from memtrace.forecast.model.parameter_tensors import (
    POSITION_SCORES,
    Division,
    ParameterTensor,
    Place,
    parameter_tensors,
)
from memtrace.forecast.model.precision import Precision
from memtrace.forecast.model.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Elements of one part of a model. The three add up to it."""

    split: int = 0
    """Elements that tensor parallelism divides."""
    whole: int = 0
    """Elements that every tensor-parallel rank holds."""
    experts: int = 0
    """Elements of routed experts, which expert parallelism divides, and tensor parallelism too."""

    @property
    def total(self) -> int:
        """All elements of the part."""
        return self.split + self.whole + self.experts


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParameters:
    """All parameters of a model."""

    embedding: Part
    """Tokens, positions and token types, their norm, and projections into the hidden width."""
    encoder: Part
    """All layers of an encoder; empty where there is none."""
    dense_layer: Part
    """One layer with a plain MLP; empty where there is none."""
    moe_layer: Part
    """One layer with experts; empty where there is none."""
    num_dense_layers: int
    num_moe_layers: int
    head: Part
    """Final norm and output head; without the head's matrix where it is the embedding's."""
    extra: int
    """Elements beyond the listed shapes, in the layers."""

    @property
    def layers_total(self) -> int:
        """Elements of all layers."""
        dense = self.num_dense_layers * self.dense_layer.total
        return self.encoder.total + dense + self.num_moe_layers * self.moe_layer.total + self.extra

    @property
    def total(self) -> int:
        """Elements of the whole model, a shared matrix once."""
        return self.embedding.total + self.layers_total + self.head.total


@lru_cache(maxsize=256)
def count_parameters(spec: ModelSpec) -> ModelParameters:
    """Return the parameters of a model by part.

    >>> gpt2 = ModelSpec(name="gpt2", num_layers=12, hidden=768, num_heads=12, num_kv_heads=12, head_dim=64, ffn=3072,
    ...                  vocabulary=50257, learned_positions=1024)
    >>> count_parameters(gpt2).total
    124439808
    """
    tensors = parameter_tensors(spec)
    return ModelParameters(
        embedding=_part(tensors, Place.EMBEDDING),
        encoder=_all(tensors, Place.ENCODER_LAYER),
        dense_layer=_part(tensors, Place.DENSE_LAYER),
        moe_layer=_part(tensors, Place.MOE_LAYER),
        num_dense_layers=spec.num_layers - spec.num_moe_layers,
        num_moe_layers=spec.num_moe_layers,
        head=_part(tensors, Place.HEAD),
        extra=spec.extra_parameters,
    )


def num_parameters(spec: ModelSpec) -> int:
    """Return the number of parameters of a model, a shared matrix counted once."""
    return count_parameters(spec).total


def num_parameter_tensors(spec: ModelSpec) -> int:
    """Return the number of parameter tensors of a model."""
    return sum(one.copies for one in parameter_tensors(spec))


def active_parameters(spec: ModelSpec) -> int:
    """Return the parameters that take part in the computation of one token: all but the experts it is not sent to."""
    if not spec.num_moe_layers:
        return num_parameters(spec)
    experts = sum(one.copies * one.numel for one in parameter_tensors(spec) if one.division is Division.EXPERTS)
    return num_parameters(spec) - experts * (spec.num_experts - spec.experts_per_token) // spec.num_experts


def _part(tensors: list[ParameterTensor], place: Place) -> Part:
    """Return the elements at one place; of layers, those of one."""
    return _all([replace(one, copies=1) for one in tensors], place)


def _all(tensors: list[ParameterTensor], place: Place) -> Part:
    """Return the elements at one place, of all layers."""
    sums = dict.fromkeys(Division, 0)
    for one in tensors:
        if one.place is place:
            sums[one.division] += one.copies * one.numel
    return Part(split=sums[Division.SPLIT], whole=sums[Division.WHOLE], experts=sums[Division.EXPERTS])


@dataclass(frozen=True, slots=True, kw_only=True)
class CastCopies:
    """Bytes of the 16-bit copies of matrices that autocast makes in forward; autograd keeps them for backward."""

    layers: int
    """Of all layers."""
    head: int

    @property
    def total(self) -> int:
        """All copies."""
        return self.layers + self.head


def autocast_copies(spec: ModelSpec, precision: Precision, adapter: Adapter | None = None) -> CastCopies:
    """Return the copies that autocast makes: each matrix of a product is cast once a forward pass.

    Embeddings that are only looked up are not cast; a tied one is, for the head. Grouped products of experts are not on
    autocast's lists.

    >>> from memtrace.forecast.model.precision import PRECISIONS
    >>> two = ModelSpec(
    ...     name="x", num_layers=2, hidden=8, num_heads=2, num_kv_heads=2, head_dim=4, ffn=32, vocabulary=50
    ... )
    >>> autocast_copies(two, PRECISIONS["autocast"])
    CastCopies(layers=3072, head=800)
    """
    if not precision.is_autocast:
        return CastCopies(layers=0, head=0)
    tensors = [one for one in parameter_tensors(spec) if len(one.shape) > 1 and one.division is not Division.EXPERTS]
    in_layers = [one for one in tensors if one.place not in (Place.EMBEDDING, Place.HEAD)]
    in_layers = [one for one in in_layers if not one.name.endswith(POSITION_SCORES)]
    if adapter is not None:
        in_layers += trained_tensors(spec, adapter)
    in_head = [one for one in tensors if one.place is Place.HEAD]
    if spec.tied and spec.has_head:
        in_head += [one for one in tensors if one.name == "embedding"]
    layers, head = (sum(one.copies * one.numel for one in part) for part in (in_layers, in_head))
    return CastCopies(layers=precision.compute_bytes * layers, head=precision.compute_bytes * head)
