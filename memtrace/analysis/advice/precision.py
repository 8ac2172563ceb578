"""Lower precision: the activations under bfloat16 autocast.

In: `Case` of a run in float32. Out: a `Finding`. Autocast runs matrix products, convolutions and attention in 16 bits
and what must be exact (norms, softmax, powers, losses, sums) in 32, by a table in the documentation of torch.amp. So of
what is saved, a tensor halves if an operator in 16 bits or a usual activation function keeps it, or if a projection
made it, and so does its gradient; beside them lies a copy in 16 bits of each weight that such an operator keeps. What
only other operators keep (the products of a norm written out, say) counts as staying, and so do parameters, gradients
and states.
"""

from __future__ import annotations

import re

import numpy as np

from memtrace.analysis.advice.case import BoolArray, Case, Cut
from memtrace.analysis.advice.kept_for_backward import kept_as, kept_by
from memtrace.analysis.advice.passes import all_passes
from memtrace.analysis.results.report import Finding
from memtrace.analysis.what_if.recompute import is_projected
from memtrace.schema.names import Category, Phase
from memtrace.units import format_bytes

_IN_16_BITS = re.compile(
    r"Addmm|Mm|Bmm|Baddbmm|Addbmm|Addmv|Mv|Linear|.*Convolution.*|ScaledDotProduct.*|.*Rnn.*|.*Lstm.*"
)
_OF_ANY_TYPE = re.compile(r"Gelu|Silu|Relu|LeakyRelu|Elu|Hardswish|Hardtanh|Mish|\w*Dropout|MaxPool\w*|\w*AvgPool\w*")
"""Operators whose output has the type of their input, which in a network mostly comes from one in 16 bits."""


def lower_precision(case: Case) -> Finding | None:
    """Return the advice to run forward under bfloat16 autocast, where float32 activations make the peak."""
    header = case.history.rank.header
    if header.get("autocast_dtypes") or not len(case.history.rank.table("saved")):
        return None
    rows = np.flatnonzero(_halves(case))
    cuts = [case.cut(rows, case.lifetimes.size_bytes[rows] // 2), *_copies_of_weights(case)]
    new_peak = case.new_peak(*cuts)
    if new_peak is None:
        return None
    halved = case.at_peak(case.cut(rows))
    return Finding(
        slug="activations-in-float",
        severity="info",
        title=f"Activations in float32 that 16 bits would do for: {format_bytes(halved)} at the peak",
        evidence={
            "float32_activations_at_peak_bytes": halved,
            "copies_of_weights_bytes": -case.at_peak(*cuts[1:]),
        },
        change="Run forward and loss under torch.autocast(device, dtype=torch.bfloat16).",
        cost="Matrix products are rounded to 8 bits of precision, which training of most networks bears; it needs a "
        "device that is fast in bfloat16.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=None,
    )


def _halves(case: Case) -> BoolArray:
    """Return whether each allocation is a float32 activation that would be saved in 16 bits."""
    halving = kept_by(case, lambda name: (_IN_16_BITS.fullmatch(name) or _OF_ANY_TYPE.fullmatch(name)) is not None)
    halving |= is_projected(case.history.rank, case.start_ns)
    saved = case.is_category(Category.ACTIVATION) & kept_as(case, "float32")
    halves = saved & halving
    # In backward, the gradient of a tensor has its size and its type.
    sizes = case.lifetimes.size_bytes
    of_halves = np.isin(sizes, np.setdiff1d(sizes[halves], sizes[saved & ~halves]))
    in_backward = case.in_phase(Phase.BACKWARD) & case.is_category(Category.TEMPORARY, Category.UNKNOWN)
    return halves | (in_backward & of_halves)


def _copies_of_weights(case: Case) -> list[Cut]:
    """Return the copies in 16 bits of weights, from forward to the end of backward, as bytes in addition."""
    weights = case.is_category(Category.PARAMETER) & kept_as(case, "float32")
    weights &= kept_by(case, lambda name: _IN_16_BITS.fullmatch(name) is not None)
    num_bytes = int(case.lifetimes.size_bytes[np.intersect1d(np.flatnonzero(weights), case.live_at_peak)].sum()) // 2
    passes = all_passes(case)
    if not num_bytes or not passes:
        return []
    return [
        Cut(
            start=np.array([one.forward for one in passes], np.int64),
            end=np.array([one.end for one in passes], np.int64),
            size_bytes=np.full(len(passes), -num_bytes, np.int64),
        )
    ]
