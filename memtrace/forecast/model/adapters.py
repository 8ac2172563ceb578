"""Low-rank adapters (LoRA) on a frozen base, which may be quantized (QLoRA): what is trained, and what the base takes.

In: `ModelSpec`, `Adapter`, `Precision`. Out: `ParameterTensor`s that are trained, and bytes of the base's weights.

LoRA   Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685: `W + B·A`, `A` of rank by inputs
       and `B` of outputs by rank
QLoRA  Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, arXiv 2305.14314: 4-bit NormalFloat in blocks of
       64 with one float32 scale each
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.errors import MemtraceError
from memtrace.forecast.model.parameter_tensors import ParameterTensor, Place, parameter_tensors
from memtrace.forecast.model.precision import PRECISIONS, Precision
from memtrace.forecast.model.spec import ModelSpec

BASES = ("plain", "int8", "nf4")
TARGETS = {
    "qv": ("attention.query", "attention.value", "attention.qkv"),
    "attention": ("attention.",),
    "all": ("attention.", "mlp."),
}
"""By the name that `--lora-on` takes: beginnings of the names of matrices. `qv` is PEFT's choice for Llama, and the
fused matrix where there is one; `all` is QLoRA's."""
NF4_BLOCK = 64
"""Elements that share one float32 scale: bitsandbytes, `blocksize=64`."""
ADAPTED_PRECISIONS = ("fp32", "autocast", "bf16", "bf16-mixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Which matrices have an adapter of which rank, and how the frozen ones are kept."""

    rank: int
    targets: str = "all"
    """A key of `TARGETS`."""
    base: str = "plain"
    """plain: as the precision says; int8 or nf4: matrices of the layers as bitsandbytes quantizes them."""

    def __post_init__(self) -> None:
        """Refuse names that no formula knows."""
        if self.rank < 1 or self.targets not in TARGETS or self.base not in BASES:
            raise MemtraceError(
                f"an adapter has a rank from 1, targets {', '.join(TARGETS)}, a base {', '.join(BASES)}"
            )


def trained_precision(precision: Precision, adapter: Adapter | None) -> Precision:
    """Return how the trained parameters are kept: PEFT makes adapters of a 16-bit base float32.

    Source: PEFT `autocast_adapter_dtype`, true by default. All in bfloat16, adapters are so too (torchtune).
    """
    return PRECISIONS["fp32"] if adapter is not None and precision.master_bytes else precision


def adapted(spec: ModelSpec, adapter: Adapter) -> list[ParameterTensor]:
    """Return the matrices that have an adapter."""
    begins = TARGETS[adapter.targets]
    return [one for one in _matrices(spec) if one.name.startswith(begins)]


def trained_tensors(spec: ModelSpec, adapter: Adapter | None) -> list[ParameterTensor]:
    """Return the parameters that are trained: all of them, or two matrices for each that has an adapter.

    >>> from memtrace.forecast.model.presets import preset
    >>> pairs = trained_tensors(preset("llama-2-7b"), Adapter(rank=8, targets="qv"))
    >>> sum(one.copies * one.numel for one in pairs)
    4194304
    """
    if adapter is None:
        return parameter_tensors(spec)
    found = []
    for one in adapted(spec, adapter):
        rows, columns = one.shape
        for part, shape in (("A", (adapter.rank, columns)), ("B", (rows, adapter.rank))):
            found.append(
                ParameterTensor(
                    name=f"{one.name}.lora {part}", shape=shape, division=one.division, place=one.place,
                    copies=one.copies,
                )
            )  # fmt: skip
    return found


def base_bytes(spec: ModelSpec, adapter: Adapter, precision: Precision) -> int:
    """Return the bytes of the frozen weights.

    Source: bitsandbytes `Linear8bitLt` keeps int8 and a float32 scale a row, `Linear4bit` half a byte and a float32
    scale a block. Embedding, head, norms and biases stay as they are.

    >>> from memtrace.forecast.model.presets import preset
    >>> llama, bf16 = preset("llama-2-7b"), PRECISIONS["bf16"]
    >>> [round(base_bytes(llama, Adapter(rank=8, base=base), bf16) / 1e9, 2) for base in BASES]
    [13.48, 7.01, 4.17]
    """
    return sum(one.copies * frozen_bytes(one, adapter, precision) for one in parameter_tensors(spec))


def frozen_bytes(tensor: ParameterTensor, adapter: Adapter, precision: Precision) -> int:
    """Return the bytes of one copy of a frozen tensor."""
    if adapter.base == "plain" or tensor.place is not Place.DENSE_LAYER or len(tensor.shape) != 2:
        return tensor.numel * precision.weight_bytes
    return _quantized_bytes(tensor, adapter.base)


def dequantized_bytes(spec: ModelSpec, adapter: Adapter | None, precision: Precision) -> int:
    """Return the bytes of the largest matrix as a product with a 4-bit one makes it, in the type of the product."""
    if adapter is None or adapter.base != "nf4":
        return 0
    return max(one.numel for one in _matrices(spec)) * precision.compute_bytes


def check_adapter(spec: ModelSpec, adapter: Adapter, precision: Precision) -> None:
    """Raise `MemtraceError` for what the formulas of adapters do not describe."""
    if spec.num_experts:
        raise MemtraceError(
            "adapters of a mixture of experts are not estimated", hint="memtrace predict runs the program"
        )
    if spec.extra_parameters:
        raise MemtraceError("adapters need a model whose matrices are known", hint="give --config or --preset")
    if precision.name not in ADAPTED_PRECISIONS:
        hint = f"choose one of {', '.join(ADAPTED_PRECISIONS)}"
        raise MemtraceError(f"adapters are not estimated in {precision.name}", hint=hint)


def _matrices(spec: ModelSpec) -> list[ParameterTensor]:
    return [one for one in parameter_tensors(spec) if one.place is Place.DENSE_LAYER and len(one.shape) == 2]


def _quantized_bytes(tensor: ParameterTensor, base: str) -> int:
    if base == "int8":
        return tensor.numel + 4 * tensor.shape[0]
    return -(-tensor.numel // 2) + 4 * -(-tensor.numel // NF4_BLOCK)
