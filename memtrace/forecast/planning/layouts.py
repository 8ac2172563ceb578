"""All layouts that could be: axes, ZeRO stages, recomputation and micro-batches whose product is what there is.

In: `ModelSpec`, a number of GPUs, sequences of a global batch. Out: `Grid`, one int64 array an axis, a row a layout.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from memtrace.errors import MemtraceError
from memtrace.forecast.memory.formulas import accumulation_steps
from memtrace.forecast.memory.layout import Layout
from memtrace.forecast.memory.stages import ENDS, in_framework
from memtrace.forecast.model.spec import ModelSpec

IntArray = npt.NDArray[np.int64]

MAX_TENSOR_PARALLEL = 16
"""Two nodes of eight: beyond that the links between nodes decide everything."""
MAX_CONTEXT_PARALLEL = 32
MAX_MICRO_BATCH = 64
MAX_STAGES = 128


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Layouts as columns."""

    dp: IntArray
    tp: IntArray
    pp: IntArray
    virtual_stages: IntArray
    """Stages of the model that a rank of the pipeline has."""
    cp: IntArray
    ep: IntArray
    zero: IntArray
    recompute: IntArray
    """Place in `layout.RECOMPUTE`."""
    micro_batch: IntArray
    accumulation: IntArray

    def __len__(self) -> int:
        """Return the number of layouts."""
        return len(self.dp)

    def layout(self, spec: ModelSpec, framework: str = "none") -> Layout:
        """Return the axes as one `Layout` of arrays, of a framework's pipelines and sequence parallelism."""
        names = ("dp", "tp", "pp", "virtual_stages", "cp", "ep", "zero")
        axes = Layout(**{name: getattr(self, name) for name in names})
        return in_framework(axes, spec, framework)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Grid:
        """Return some of the layouts."""
        return Grid(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


def layout_grid(
    spec: ModelSpec,
    *,
    gpus: int,
    global_sequences: int,
    sequence: int,
    has_quadratic: bool,
    gpus_per_node: int,
    interleaves: bool = True,
) -> Grid:
    """Return every layout of a model on so many GPUs.

    Tensor parallelism divides the heads; a pipeline has no more stages than layers, whether these divide or not, as 126
    layers of Llama 3 405B on 16 stages do not; ZeRO-2 and 3 go without pipeline parallelism, since each micro-batch
    would reduce and gather again; selective recomputation is tried where attention weights are written out
    (`has_quadratic`), and schedules of several stages a rank where what trains has them (`interleaves`).

    Raises:
        MemtraceError: there is none.
    """
    recomputes = (0, 1, 2) if has_quadratic else (0, 2)
    rows = [
        (dp, tp, pp, virtual, cp, ep, zero, recompute, micro_batch, accumulation)
        for tp, pp, cp, dp in _meshes(spec, gpus, sequence, gpus_per_node)
        for micro_batch in _micro_batches(global_sequences, dp)
        for accumulation in (accumulation_steps(global_sequences, micro_batch, dp),)
        for virtual in (_virtual_stages(spec, pp, accumulation) if interleaves else (1,))
        for ep in _expert_sizes(spec, dp * cp)
        for zero, recompute in itertools.product(_zero_stages(pp, dp * cp), recomputes)
    ]
    if not rows:
        raise MemtraceError(
            f"no layout of {spec.name} on {gpus} GPUs gives {global_sequences} sequences a step",
            hint="the global batch must be at least one sequence, and divisible, for each data-parallel rank",
        )
    columns = np.array(rows, np.int64).T
    return Grid(**{one.name: column for one, column in zip(fields(Grid), columns, strict=True)})


def _meshes(spec: ModelSpec, gpus: int, sequence: int, gpus_per_node: int) -> list[tuple[int, int, int, int]]:
    """Return tensor, pipeline, context and data-parallel sizes."""
    widest = min(MAX_TENSOR_PARALLEL, 2 * gpus_per_node)
    return [
        (tp, pp, cp, gpus // (tp * pp * cp))
        for tp in _divisors(spec.num_heads)
        if tp <= widest and gpus % tp == 0
        for pp in _divisors(gpus // tp)
        if pp <= min(spec.num_layers, MAX_STAGES)
        for cp in _divisors(sequence)
        # A ring of causal attention gives each rank two chunks of the sequence, so that all have equal work.
        if cp <= MAX_CONTEXT_PARALLEL and (cp == 1 or sequence % (2 * cp) == 0) and gpus % (tp * pp * cp) == 0
        if cp & (cp - 1) == 0
    ]


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0] if number <= 4096 else _powers(number)


def _powers(number: int) -> list[int]:
    """Return the powers of two that divide a number."""
    return [1 << bit for bit in range(number.bit_length()) if number % (1 << bit) == 0]


def _expert_sizes(spec: ModelSpec, replicas: int) -> list[int]:
    if not spec.num_moe_layers:
        return [1]
    return [one for one in _divisors(spec.num_experts) if replicas % one == 0]


def _zero_stages(pp: int, shards: int) -> tuple[int, ...]:
    if shards == 1:
        return (0,)
    return (0, 1) if pp > 1 else (0, 1, 2, 3)


def _virtual_stages(spec: ModelSpec, pp: int, accumulation: int) -> list[int]:
    """Return how many stages a rank may have: Megatron-LM interleaves micro-batches in groups of as many as ranks."""
    if pp == 1 or accumulation % pp:
        return [1]
    sizes = (1, 2, 4, 8)
    return [one for one in sizes if one * pp <= spec.num_layers or (spec.num_layers + ENDS) % (one * pp) == 0]


def _micro_batches(global_sequences: int, dp: int) -> list[int]:
    """Return the micro-batches with which a rank's share of the batch is a whole number of them."""
    if global_sequences % dp:
        return []
    share = global_sequences // dp
    return [one for one in range(1, min(share, MAX_MICRO_BATCH) + 1) if share % one == 0]
