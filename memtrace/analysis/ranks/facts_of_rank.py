"""What one rank contributes to a comparison of ranks: what it holds of each parameter, and what tells of sharding.

In: `DeviceHistory`. Out: `RankFacts`, a few columns as short as the list of parameters, so that they can travel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from memtrace.analysis.advice.kept_for_backward import operator
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.device.owned_bytes import end_of_step
from memtrace.analysis.results.ranks import RankFacts
from memtrace.schema.names import Category, Phase
from memtrace.schema.shapes import parse_shape
from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

_REDUCER = "Reducer"
"""Class name of the scopes in which hooks saw DistributedDataParallel make its buckets."""
_GATHER = "all-gather of "
"""How the rows begin that hooks write when FSDP2 gathers parameters."""
_WHOLE_GRADIENT = "unsharded "
"""How the rows begin of gradients that are yet to be reduced and divided."""
_PARALLEL_CLASS = re.compile(r"(Column|Colwise|Row|Rowwise|Vocab)Parallel")
"""Modules that divide a layer: of Megatron, fairscale, vLLM and what is derived from them."""
_IS_NORM = re.compile(r"norm", re.IGNORECASE)
_IS_LINEAR = re.compile(r"Addmm|Mm|Linear")


@dataclass(slots=True)
class _Parameter:
    """What is held of one parameter."""

    dtype: str | None = None
    shape: str | None = None
    global_shape: str | None = None
    placement: str | None = None
    num_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes by name of the column of `RankFacts`."""


def rank_facts(history: DeviceHistory) -> RankFacts | None:
    """Return what a rank holds on one device; `None` where no parameter was seen there."""
    rows, step = _last_rows(history)
    parameters = _parameters(history.rank, rows)
    if not parameters:
        return None
    ordered = sorted(parameters.items())
    gathers = _gathers(history)
    return RankFacts(
        names=tuple(name for name, _ in ordered),
        dtypes=tuple(one.dtype for _, one in ordered),
        shapes=tuple(one.shape for _, one in ordered),
        global_shapes=tuple(one.global_shape for _, one in ordered),
        placements=tuple(one.placement for _, one in ordered),
        **{
            column: np.array([one.num_bytes.get(column, 0) for _, one in ordered], np.int64)
            for column in ("parameter_bytes", "gradient_bytes", "row_state_bytes", "other_state_bytes")
        },
        step=step,
        uses_ddp=_REDUCER in _texts(history.rank, "scopes", "class_name"),
        gathers_forward=bool(np.any(~gathers)),
        gathers_backward=bool(np.any(gathers)),
        optimizers=_texts(history.rank, "optimizers", "class_name"),
        parallel_classes=tuple(
            name for name in _texts(history.rank, "scopes", "class_name") if _PARALLEL_CLASS.search(name)
        ),
        sequence_parts=_sequence_parts(history),
    )


def _last_rows(history: DeviceHistory) -> tuple[IntArray, int | None]:
    """Return the rows of owners at the end of the last step that has some, and its number; else all of the device."""
    owners = history.rank.table("owners")
    rows = np.flatnonzero(owners["device"] == history.rank.string_id(history.device))
    end_ns = end_of_step(history, owners["step"][rows])
    at_end = rows[(end_ns != NULL) & (owners["time_ns"][rows] >= end_ns)]
    if not len(at_end):
        return rows, None
    step = int(owners["step"][at_end].max())
    return at_end[owners["step"][at_end] == step], step


def _parameters(rank: RankTrace, rows: IntArray) -> dict[str, _Parameter]:
    """Return what is held of each parameter, from the last of the rows about each tensor."""
    owners = {name: column[rows].tolist() for name, column in rank.table("owners").columns.items()}
    tensors: dict[tuple[str, str], int] = {}
    for at, (category, name) in enumerate(zip(owners["category"], owners["name"], strict=True)):
        tensors[rank.text(category) or "", rank.text(name) or ""] = at
    found: dict[str, _Parameter] = {}
    # Parameters come first: only of known ones are gradients and states counted.
    for (category, name), at in tensors.items():
        if category == Category.PARAMETER:
            dtype, shape, whole, placement = (
                rank.text(owners[column][at]) for column in ("dtype", "shape", "global_shape", "placement")
            )
            found[name] = _Parameter(dtype, shape, whole, placement, {"parameter_bytes": owners["tensor_bytes"][at]})
    for (category, name), at in tensors.items():
        num_bytes = owners["tensor_bytes"][at]
        if category == Category.GRADIENT and not name.startswith(_WHOLE_GRADIENT):
            _add(found.get(name), "gradient_bytes", num_bytes)
        elif category == Category.OPTIMIZER_STATE:
            parameter = found.get(name.partition(" of ")[2])
            is_cut = parameter is not None and _has_rows_of(parameter.shape, rank.text(owners["shape"][at]))
            _add(parameter, "row_state_bytes" if is_cut else "other_state_bytes", num_bytes)
    return found


def _add(parameter: _Parameter | None, column: str, num_bytes: int) -> None:
    if parameter is not None:
        parameter.num_bytes[column] = parameter.num_bytes.get(column, 0) + num_bytes


def _has_rows_of(parameter: str | None, state: str | None) -> bool:
    """Return whether a state has as many rows as its parameter, by their shapes; a scalar has none."""
    return bool(state) and (parameter or "").partition("x")[0] == (state or "").partition("x")[0]


def _gathers(history: DeviceHistory) -> npt.NDArray[np.bool_]:
    """Return for each time that FSDP2 gathered parameters whether it did so in a backward pass."""
    rank, owners, phases = history.rank, history.rank.table("owners"), history.rank.table("phases")
    names = [name for name in np.unique(owners["name"]).tolist() if (rank.text(name) or "").startswith(_GATHER)]
    times = owners["time_ns"][np.isin(owners["name"], names)]
    row = history.phases.innermost(times)
    phase = np.append(phases["phase"], NULL)[row]
    backward = [rank.string_id(one.value) for one in (Phase.BACKWARD, Phase.RECOMPUTE)]
    return np.isin(phase, backward)


def _sequence_parts(history: DeviceHistory) -> int | None:
    """Return how many times more tokens linear layers keep for backward than norms do."""
    rank, saved, owners = history.rank, history.rank.table("saved"), history.rank.table("owners")
    # Linear layers keep their weights as well, which may be gathered ones.
    kinds = [rank.string_id(one.value) for one in (Category.PARAMETER, Category.COMMUNICATION)]
    weights = owners["address"][np.isin(owners["category"], kinds)]
    kept = (saved["device"] == rank.string_id(history.device)) & ~np.isin(saved["address"], weights)
    norm = max(_tokens(rank, kept, _IS_NORM), default=0)
    linear = max(_tokens(rank, kept, _IS_LINEAR), default=0)
    return linear // norm if norm and linear and linear % norm == 0 else None


def _tokens(rank: RankTrace, kept: npt.NDArray[np.bool_], is_such: re.Pattern[str]) -> Iterator[int]:
    """Yield the sizes of what operators of a kind keep, without the last dimension."""
    saved = rank.table("saved")
    ops = [op for op in np.unique(saved["op"]).tolist() if is_such.search(operator(rank.text(op) or ""))]
    for shape in np.unique(saved["shape"][kept & np.isin(saved["op"], ops)]).tolist():
        sizes = parse_shape(rank.text(shape))
        if sizes is not None and len(sizes) > 1:
            yield math.prod(sizes[:-1])


def _texts(rank: RankTrace, table: str, column: str) -> tuple[str, ...]:
    """Return the distinct texts of a column, in order."""
    values = np.unique(rank.table(table)[column]).tolist()
    return tuple(sorted(text for value in values if (text := rank.text(value)) is not None))
