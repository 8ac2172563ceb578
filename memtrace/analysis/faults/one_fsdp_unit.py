"""FSDP2 on the root alone: one unit, so that all parameters are gathered at once.

In: `Case` with what FSDP2 holds for communication. Out: a `Finding`. Each group of parameters is gathered into a buffer
of its own, which bears the name of its module. What units for each layer would hold is two of them, the one that runs
and the one that is gathered ahead.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category
from memtrace.store.columns import NULL
from memtrace.units import format_bytes

_GATHER = "all-gather of "
_NEARLY_ALL = 0.8
_HELD_AT_A_TIME = 2


def one_fsdp_unit(case: Case) -> Finding | None:
    """Return the advice to shard each layer by itself, where one unit gathers nearly everything."""
    rank, owners = case.history.rank, case.history.rank.table("owners")
    names = {number: rank.text(number) or "" for number in np.unique(owners["name"]).tolist() if number != NULL}
    gathers = [number for number, name in names.items() if name.startswith(_GATHER)]
    sizes = {number: int(owners["size_bytes"][owners["name"] == number].max()) for number in gathers}
    layers = _layers([names[number] for number in _parameters(case)])
    if not sizes or layers <= _HELD_AT_A_TIME or max(sizes.values()) < _NEARLY_ALL * sum(sizes.values()):
        return None
    rows = np.flatnonzero(case.is_category(Category.COMMUNICATION))
    held = case.lifetimes.size_bytes[rows]
    cut = case.cut(rows, held - held * _HELD_AT_A_TIME // layers)
    new_peak = case.new_peak(cut)
    if new_peak is None:
        return None
    largest = max(sizes, key=lambda number: sizes[number])
    return Finding(
        slug="one-fsdp-unit",
        severity="warning",
        title=f"FSDP gathers nearly all parameters at once, as one unit of {format_bytes(sizes[largest])}",
        evidence={
            "unit": names[largest].removeprefix(_GATHER),
            "unit_bytes": sizes[largest],
            "num_units": len(sizes),
            "num_layers": layers,
            "communication_at_peak_bytes": int(held[np.isin(rows, case.live_at_peak)].sum()),
        },
        change="Call fully_shard on each layer before the root: for layer in model.layers: fully_shard(layer); "
        "fully_shard(model).",
        cost="More and smaller messages, which run beside the computation.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=rank.rank,
        where=place_of(case.history, rows),
    )


def _parameters(case: Case) -> list[int]:
    """Return the string ids of the names of the parameters."""
    owners = case.history.rank.table("owners")
    chosen = owners["category"] == case.history.rank.string_id(Category.PARAMETER.value)
    return [number for number in np.unique(owners["name"][chosen]).tolist() if number != NULL]


def _layers(names: list[str]) -> int:
    """Return how many numbered modules of one container the parameters are in, of the container with the most.

    >>> _layers(["layers.0.up.weight", "layers.0.norm.weight", "layers.1.up.weight", "head.weight"])
    2
    """
    found: dict[str, set[str]] = {}
    for name in names:
        parts = name.split(".")
        at = next((at for at, part in enumerate(parts) if part.isdigit()), None)
        if at is not None:
            found.setdefault(".".join(parts[:at]), set()).add(parts[at])
    return max(map(len, found.values()), default=0)
