"""The optimizer's share: the temporaries of its step, the bits of its state, and the same state on every rank.

In: `Case`. Out: `Finding`s.

Sources: a foreach step makes lists of temporaries, one a parameter (pytorch#97712, and the note on `foreach` in the
documentation of torch.optim); 8-bit states are one byte an element and a float32 scale for each block of 256, for
tensors of at least 4096 elements (Dettmers et al., arXiv 2110.02861, and bitsandbytes); ZeRO stages 1 to 3 (Rajbhandari
et al., arXiv 1910.02054) divide states, then gradients, then parameters by the number of ranks.
"""

from __future__ import annotations

import numpy as np

from memtrace.analysis.advice.case import BoolArray, Case
from memtrace.analysis.device.program_lines import place_of
from memtrace.analysis.device.stacks import frames_of
from memtrace.analysis.first_step.steady_state import parameter_groups
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Category, Phase
from memtrace.store.columns import NULL, IntArray
from memtrace.units import format_bytes

_TEMPORARIES_OF_A_LOOP = 2
"""Temporaries of one parameter where a list has one: `(x.sqrt() / y).add_(eps)` makes two, as in Adam; SGD has one."""
_WITH_8_BIT_STATE = frozenset({"Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Lion", "LAMB", "LARS", "AdEMAMix"})
_LEAST_8_BIT_ELEMENTS = 4096
_ELEMENTS_A_SCALE = 256
_FLOAT32_BYTES = 4


def lists_of_temporaries(case: Case) -> Finding | None:
    """Return the advice to step parameter by parameter, or fused, where the temporaries of all at once make the peak.

    A loop over the parameters holds the temporaries of one of them at a time: at its peak, of the largest.
    """
    made = case.in_phase(Phase.OPTIMIZER) & case.is_category(Category.TEMPORARY, Category.UNKNOWN)
    rows = np.flatnonzero(made & _ends_in_its_phase(case))
    parameters = case.lifetimes.size_bytes[case.live_at_peak][case.is_category(Category.PARAMETER)[case.live_at_peak]]
    if not len(rows) or not parameters.any() or not _is_foreach(case, rows):
        return None
    largest, total = int(parameters.max()), int(parameters.sum())
    sizes = case.lifetimes.size_bytes[rows]
    num_in_loop = (
        1 if {group.class_name for group in parameter_groups(case.history)} == {"SGD"} else _TEMPORARIES_OF_A_LOOP
    )
    cut = case.cut(rows, np.maximum(sizes - sizes * num_in_loop * largest // total, 0))
    new_peak = case.new_peak(cut)
    if new_peak is None:
        return None
    temporaries = case.at_peak(case.cut(rows))
    without_any = case.new_peak(case.cut(rows))
    return Finding(
        slug="foreach-temporaries",
        severity="warning",
        title=f"The optimizer step makes temporaries for all parameters at once: {format_bytes(temporaries)} "
        "at the peak",
        evidence={
            "temporaries_at_peak_bytes": temporaries,
            "parameter_bytes": total,
            "new_peak_fused_bytes": without_any,
            "largest_parameter_bytes": largest,
        },
        change="Build the optimizer with fused=True, which makes none, or with foreach=False, which makes those of one "
        "parameter at a time.",
        cost="fused: none, where the optimizer and the device have it. foreach=False: one kernel a parameter, "
        "slower steps with many small parameters.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, rows),
    )


def _ends_in_its_phase(case: Case) -> BoolArray:
    """Return whether each allocation is given back in the phase in which it was made."""
    phases = case.history.rank.table("phases")
    ends = np.append(phases["end_ns"], NULL)[case.phase_row]
    last = np.append(case.history.moments.time_ns, np.iinfo(np.int64).max)
    ended: BoolArray = (ends != NULL) & (last[case.lifetimes.in_use_end] <= ends)
    return ended


def _is_foreach(case: Case, rows: IntArray) -> bool:
    """Return whether the step takes lists of tensors: as its options say, or as the functions that ask for memory."""
    groups = parameter_groups(case.history)
    if groups:
        return any(one.implementation(is_cpu=case.history.is_cpu) == "foreach" for one in groups)
    stacks = np.unique(case.lifetimes.stack[rows])
    return any("_multi_tensor" in frame for one in stacks.tolist() for frame in frames_of(case.history.rank, one))


def eight_bit_state(case: Case) -> Finding | None:
    """Return the advice to keep float32 states in 8 bits, for optimizers of which such a variant exists."""
    names = {group.class_name for group in parameter_groups(case.history)}
    if not names or not names <= _WITH_8_BIT_STATE:
        return None
    rows = np.flatnonzero(case.is_category(Category.OPTIMIZER_STATE))
    rows = rows[_is_float32(case, rows)]
    sizes = case.lifetimes.size_bytes[rows]
    elements = sizes // _FLOAT32_BYTES
    rows, sizes, elements = (one[elements >= _LEAST_8_BIT_ELEMENTS] for one in (rows, sizes, elements))
    scales = -(-elements // _ELEMENTS_A_SCALE) * _FLOAT32_BYTES
    new_peak = case.new_peak(case.cut(rows, sizes - elements - scales))
    if new_peak is None:
        return None
    return Finding(
        slug="optimizer-state-in-float",
        severity="info",
        title=f"Optimizer state in float32: {format_bytes(int(sizes[_live(case, rows)].sum()))} at the peak",
        evidence={
            "float32_state_bytes": int(sizes[_live(case, rows)].sum()),
            "eight_bit_state_bytes": int((elements + scales)[_live(case, rows)].sum()),
            "optimizer": ", ".join(sorted(names)),
        },
        change="Use an 8-bit optimizer, as in bitsandbytes or torchao, whose states take a quarter.",
        cost="States are rounded to 8 bits in blocks: check that the loss still falls as before.",
        saves_bytes=case.peak_bytes - new_peak,
        saves_ns=None,
        new_peak_bytes=new_peak,
        rank=case.history.rank.rank,
        where=place_of(case.history, rows),
    )


def _is_float32(case: Case, rows: IntArray) -> BoolArray:
    """Return whether each allocation is owned by a float32 tensor, as the hooks saw."""
    rank, owner = case.history.rank, case.history.attribution.owner_row[rows]
    is_float32 = np.append(rank.table("owners")["dtype"] == rank.string_id("float32"), False)
    found: BoolArray = is_float32[np.where(owner == NULL, len(is_float32) - 1, owner)]
    return found


def _live(case: Case, rows: IntArray) -> BoolArray:
    return (case.lifetimes.start[rows] <= case.peak_moment) & (case.lifetimes.in_use_end[rows] > case.peak_moment)
