"""How a model is laid out over GPUs, and how a run is set: what every formula is evaluated for.

Each field of a `Layout` and the sizes of a `Run` are whole numbers, or int64 arrays that hold one number a layout.
"""

from __future__ import annotations

from dataclasses import dataclass

from memtrace.errors import MemtraceError
from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.memory.optimizers import OPTIMIZERS, Optimizer
from memtrace.forecast.model.adapters import Adapter
from memtrace.forecast.model.precision import PRECISIONS, Precision
from memtrace.schema.cuda_context import USUAL_CONTEXT, Context

RECOMPUTE = ("none", "selective", "full")
ATTENTION = ("flash", "sdpa", "explicit")
BACKENDS = ("cuda", "cpu")
FRAMEWORKS = ("none", "megatron", "torchtitan", "nanotron", "deepspeed", "fsdp")
"""Programs that train; none is a plain loop."""
SCHEDULES = ("1f1b", "zb-h1", "zbv")
"""What a pipeline does when: one forward, one backward, interleaved where a rank has several stages; or the schedules
of Qi et al. (Zero Bubble Pipeline Parallelism, 2023) that need no more memory than that, since the gradient of weights
is computed when a rank would wait: ZB-H1, and ZB-V with two stages a rank, there and back."""
LOSSES = ("plain", "parallel", "fused", "chunked")
"""How the loss is computed: in float32 beside the logits; the same over tensor-parallel parts of the vocabulary, whose
softmax becomes its gradient; in place of the logits; or a part of the tokens at a time."""
FRAMEWORK_LOSSES = {"megatron": "parallel", "deepspeed": "parallel", "nanotron": "parallel"}
"""What a framework has unless told otherwise; the others have the plain one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Ranks along each axis. World size is `dp · tp · pp · cp`; expert parallelism divides the data-parallel ranks."""

    dp: Size = 1
    tp: Size = 1
    pp: Size = 1
    cp: Size = 1
    ep: Size = 1
    virtual_stages: Size = 1
    """Stages of the model that one rank of the pipeline has, in an interleaved schedule."""
    group: Size = 0
    """Micro-batches that a stage of an interleaved schedule runs in a row; 0: as many as ranks."""
    schedule: str = "1f1b"
    """One of `SCHEDULES`."""
    head_layers: float = 0.0
    """How many layers the head counts as where stages are balanced by cost; 0 where stages have equally many layers."""
    ends_count: bool = False
    """Whether embedding and head count as a layer each where layers alone do not divide among the stages."""
    is_second: bool = False
    """Whether the first stage stands for the second, which is fuller where the embedding counts as a layer."""
    zero: Size = 0
    """ZeRO stage: 0 shards nothing, 1 states, 2 gradients too, 3 weights too (FSDP)."""
    sequence_parallel: bool = True
    """Whether tensor parallelism also divides, along the sequence, what it leaves whole."""

    reshard: Size = 1
    """Whether ZeRO-3 gives a layer's weights back after forward and gathers them again for backward: 1 or 0."""
    bucket_view: bool = True
    """Whether gradients are views of the buckets of DistributedDataParallel, rather than copied into them."""

    @property
    def world_size(self) -> Size:
        """GPUs of the layout."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def shards(self) -> Size:
        """Ranks that ZeRO spreads over: context-parallel ranks hold the same weights as data-parallel ones."""
        return self.dp * self.cp


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How training is set, apart from the layout."""

    micro_batch: Size = 1
    """Sequences of one forward pass on one rank."""
    sequence: Size = 1024
    """Tokens of a sequence; of an encoder and a decoder, those of the decoder."""
    source_sequence: Size | None = None
    """Tokens of the encoder's sequence; `None`: as many as `sequence`."""
    accumulation: Size = 1
    """Micro-batches of one step."""
    precision: Precision = PRECISIONS["bf16-mixed"]
    optimizer: Optimizer = OPTIMIZERS["adamw"]
    attention: str = "flash"
    """flash, sdpa (torch chooses the kernel) or explicit (scores are written out)."""
    recompute: Size = 0
    """Place in `RECOMPUTE`."""
    backend: str = "cuda"
    """cuda or cpu: kernels save different things."""
    loss: str = "plain"
    """One of `LOSSES`."""
    framework: str = "none"
    """One of `FRAMEWORKS`."""
    is_fused: bool = False
    """Whether the optimizer runs in one kernel, without temporaries as large as the model (`fused=True`)."""
    adapter: Adapter | None = None
    """Low-rank adapters that are trained in place of the model; `None`: the model is."""
    caches_kv: bool | None = None
    """Whether the forward pass also fills a cache of keys and values, as models of `transformers` do in training too
    unless `use_cache` is off. `None`: not stated; it counts as off, and the range of an estimate covers both."""
    is_padded: bool = False
    """Whether the encoder's sequences are padded, with a mask that attention is given."""
    dropout: float | None = None
    """Overrides every dropout of the model; `None` keeps them."""
    context: Context = USUAL_CONTEXT
    """What a process takes of its GPU beside torch's allocator."""

    @property
    def source(self) -> Size:
        """Tokens of the encoder's sequence."""
        return self.sequence if self.source_sequence is None else self.source_sequence

    def __post_init__(self) -> None:
        """Refuse names that no formula knows."""
        if self.attention not in ATTENTION or self.backend not in BACKENDS:
            raise MemtraceError(f"attention is one of {ATTENTION} and backend one of {BACKENDS}")
        if self.loss not in LOSSES or self.framework not in FRAMEWORKS:
            raise MemtraceError(f"loss is one of {LOSSES} and framework one of {FRAMEWORKS}")


def ceil_div(numerator: Size, denominator: Size) -> Size:
    """Return the quotient rounded up: the largest shard where something does not divide evenly.

    >>> ceil_div(7, 2)
    4
    """
    return -(-numerator // denominator)
