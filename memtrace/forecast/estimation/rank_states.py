"""What the optimizer of one certain rank remembers under FSDP2, where an estimate is of the rank with the most.

In: `ModelSpec`, `Run`, `Layout`, the rank. Out: bytes. Weights and gradients are padded to the same size on every rank;
states are made for the rows that a rank really has, and a rank beyond the last row has none.
"""

from __future__ import annotations

from dataclasses import replace

from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.memory.optimizers import STEP_BYTES
from memtrace.forecast.model.parameter_tensors import ParameterTensor, parameter_tensors
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.results import Estimate


def fsdp_states(spec: ModelSpec, run: Run, layout: Layout, rank: int) -> int:
    """Return the bytes of the states of a data-parallel rank, where FSDP2 (ZeRO-3) is all that divides the model.

    >>> from memtrace.forecast.memory.optimizers import OPTIMIZERS
    >>> from memtrace.forecast.model.parameters import num_parameters
    >>> from memtrace.forecast.model.precision import PRECISIONS
    >>> spec = ModelSpec(
    ...     name="x", num_layers=1, hidden=8, num_heads=2, num_kv_heads=2, head_dim=4, ffn=32, vocabulary=51
    ... )
    >>> run = Run(precision=PRECISIONS["fp32"], optimizer=OPTIMIZERS["sgd-momentum"])
    >>> first, second = (fsdp_states(spec, run, Layout(dp=2, zero=3), rank) for rank in (0, 1))
    >>> first - second == 8 * 4, first + second == 4 * num_parameters(spec)  # of 51 rows, the first rank has 26
    (True, True)
    """
    tensors = parameter_tensors(spec)
    states = sum(one.copies * _part(one, run, rows_of_rank(one.shape[0], int(layout.dp), rank)) for one in tensors)
    if run.backend == "cpu" and run.optimizer.counts_steps:
        states += STEP_BYTES * sum(one.copies for one in tensors)
    return states


def for_rank(result: Estimate, spec: ModelSpec, run: Run, layout: Layout, rank: int | None) -> Estimate:
    """Return an estimate with the states of a certain rank, where FSDP2 is all that divides the model.

    With other axes a rank's number does not say which part is its own: then the estimate stays that of the fullest.
    """
    is_alone = layout.zero == 3 and layout.tp == layout.pp == layout.cp == layout.ep == 1
    if not is_alone or rank is None or not 0 <= rank < layout.dp or spec.extra_parameters:
        return result
    return replace(result, state_bytes=fsdp_states(spec, run, layout, rank))


def rows_of_rank(rows: int, ranks: int, rank: int) -> int:
    """Return how many rows of a tensor a rank has: as `torch.chunk` cuts it, the last ranks have fewer or none.

    >>> [rows_of_rank(5, 4, rank) for rank in range(4)], [rows_of_rank(7, 2, rank) for rank in range(2)]
    ([2, 2, 1, 0], [4, 3])
    """
    size = -(-rows // ranks)
    return max(min(rows - rank * size, size), 0)


def _part(tensor: ParameterTensor, run: Run, rows: int) -> int:
    part = replace(tensor, shape=(rows, *tensor.shape[1:]))
    master: int = part.numel * run.precision.master_bytes
    return run.optimizer.tensor_bytes(part, run.precision) + master
