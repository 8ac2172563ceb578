"""Parameters that do not train, in 32 bits: the base under an adapter, a teacher, an encoder that is only read.

In: `Case` with owners. Out: a `Finding`. What has a gradient at the end of no step that was recorded does not train.
Averages of the weights and networks that follow another are left out: steps so small are lost in 16 bits.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.advice.case import Case
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category
from memtrace.store.columns import IntArray
from memtrace.units import format_bytes

_WORTH_ROUNDING_SHARE = 0.1
"""Less than this part of the peak is no reason to round weights."""


def frozen_in_float(case: Case) -> Finding | None:
    """Return the advice to hold in 16 bits what does not train."""
    rows = _frozen(case)
    sizes = case.lifetimes.size_bytes[rows]
    cut = case.cut(rows, sizes // 2)
    new_peak = case.new_peak(cut)
    if new_peak is None or case.peak_bytes - new_peak < _WORTH_ROUNDING_SHARE * case.peak_bytes:
        return None
    at_peak = np.isin(rows, case.live_at_peak)
    num_bytes = int(sizes[at_peak].sum())
    return Finding(
        slug="frozen-in-float",
        severity="info",
        title=f"Parameters that do not train are held in float32: {format_bytes(num_bytes)} at the peak",
        evidence={"frozen_float32_bytes": num_bytes, "num_parameters": int(at_peak.sum())},
        change="Hold them in 16 bits (model.to(torch.bfloat16) before the adapters are added), or quantized to 8 or 4 "
        "bits as for QLoRA; what trains stays in float32.",
        cost="The weights are rounded once. Forward and backward through them then run in 16 bits.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=None,
    )


def _frozen(case: Case) -> IntArray:
    """Return the allocations of float32 parameters of which no end of a step saw a gradient; none without any."""
    rank, owners = case.history.rank, case.history.rank.table("owners")
    of_owner = case.history.attribution.allocation_of_owner
    parameter = (owners["category"] == rank.string_id(Category.PARAMETER.value)) & (of_owner >= 0)
    gradient = owners["category"] == rank.string_id(Category.GRADIENT.value)
    if not gradient.any():
        return np.zeros(0, np.int64)
    trained = np.isin(owners["name"], owners["name"][gradient])
    names = rank.header.get("following_parameters") or ()
    follows = np.isin(owners["name"], [rank.string_id(name) for name in names])
    whole = owners["size_bytes"] == owners["tensor_bytes"]
    is_float = owners["dtype"] == rank.string_id("float32")
    found: IntArray = np.setdiff1d(
        of_owner[parameter & ~trained & ~follows & whole & is_float], of_owner[parameter & trained]
    )
    return found
