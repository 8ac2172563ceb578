"""Which of the blocks that were there before training are parameters, buffers or optimizer states: by their sizes.

In: the blocks that lived before the first phase and through it, and how many gradients there are of each size. Out:
rows with a category and how it was decided. A gradient is as large as its parameter, so that many blocks of its size
are parameters. Where there are more of them, something must tell which: a stack, the order in which a module is built,
or that every size comes as often as an optimizer has states. Else none is decided.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtrace.analysis.attribution.size_matching import NEEDED_SHARE, count_sizes, sets_of_sizes
from memtrace.analysis.attribution.stack_roles import OPTIMIZER_SETUP, SETUP
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.schema.names import Category, Decision
from memtrace.store.columns import IntArray

Chosen = list[tuple[Category, Decision, IntArray]]

_COUNTER_BYTES = 8
"""A norm that keeps running statistics counts its batches in one 64-bit integer, built right after them."""
_SETS = (Category.PARAMETER, Category.GRADIENT, Category.OPTIMIZER_STATE, Category.OPTIMIZER_STATE)
"""What sets of equal sizes are, in this order, where gradients too were live before the history."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residents:
    """The blocks to choose from, and what is known of them."""

    rows: IntArray
    """Rows of the lifetimes."""
    lifetimes: Lifetimes
    roles: IntArray
    """Flags of the stack of every allocation."""
    freed_in_step: npt.NDArray[np.bool_]
    """Of every allocation, whether an optimizer step freed it."""
    states: Counter[int]
    """How many blocks of each size optimizer steps made and kept."""
    num_states: int | None
    """How many of them an optimizer makes as large as a parameter; `None` if that is not known."""
    has_backward: bool
    """Whether the history shows a backward pass."""
    num_sets: tuple[int, ...]
    """How many sets of equal sizes parameters, gradients and states may be."""
    has_collectives: bool
    """Whether the history shows a distributed run, whose gradients may be pieces of larger blocks."""
    is_accelerator: bool
    """Whether the caching allocator placed them: the sooner a block was made, the lower its address, by and large."""

    def in_order(self) -> IntArray:
        """Return the rows as they were allocated; those of before the history first, by address."""
        live = self.lifetimes
        key = np.where(live.is_initial[self.rows], 0, live.start[self.rows])
        return self.rows[np.lexsort((live.address[self.rows], key))]


def choose_residents(blocks: Residents, gradients: Counter[int]) -> Chosen:
    """Return what the blocks are, given how many gradients there are of each size."""
    size, rows = blocks.lifetimes.size_bytes, blocks.in_order()
    chosen: Chosen = []
    of_optimizer = rows[(blocks.roles[rows] & OPTIMIZER_SETUP) > 0]
    if len(of_optimizer):
        chosen.append((Category.OPTIMIZER_STATE, Decision.STACK_RULE, of_optimizer))
        rows = rows[~np.isin(rows, of_optimizer)]
    if blocks.num_states is not None:
        # A gradient may be a piece of a larger block, as sharded ones are; states are like their parameters.
        per_parameter = {one: count // blocks.num_states for one, count in blocks.states.items()}
        gradients = +Counter(per_parameter | gradients)
    if not gradients:
        return chosen + _without_gradients(blocks, rows)
    statistics = _running_statistics(rows, size, gradients)
    if len(statistics):
        chosen.append((Category.BUFFER, Decision.LIFETIME_RULE, statistics))
        rows = rows[~np.isin(rows, statistics)]
    built = rows[(blocks.roles[rows] & SETUP) > 0]
    decision = Decision.STACK_RULE if len(built) else Decision.LIFETIME_RULE
    candidates = built if len(built) else rows
    counts = count_sizes(size[candidates])
    sure = {one for one, count in gradients.items() if 0 < counts[one] <= count}
    parameters = candidates[np.isin(size[candidates], list(sure))]
    several = candidates[np.isin(size[candidates], [one for one in gradients if counts[one] > gradients[one]])]
    return [*chosen, (Category.PARAMETER, decision, parameters), *_several(blocks, several, gradients, parameters)]


def _several(blocks: Residents, rows: IntArray, gradients: Counter[int], sure: IntArray) -> Chosen:
    """Return what blocks are of sizes of which there are more than gradients."""
    if not len(rows):
        return []
    live = blocks.lifetimes
    size = live.size_bytes
    replaced = rows[blocks.freed_in_step[rows]]
    if len(replaced):
        # Steps that make their states anew free the old ones; what is as large and stays is a parameter.
        kept = rows[(live.in_use_end[rows] >= live.num_moments) & np.isin(size[rows], size[replaced])]
        # Where nothing of a size stays, parameters are made anew as well.
        per_gradient, stays = count_sizes(size[replaced]), set(size[kept].tolist())
        if blocks.num_states is not None:
            unclear = {
                one
                for one, count in per_gradient.items()
                if one not in stays and count > blocks.num_states * gradients[one]
            }
            replaced = replaced[~np.isin(size[replaced], list(unclear))]
        return [
            (Category.OPTIMIZER_STATE, Decision.LIFETIME_RULE, replaced),
            (Category.PARAMETER, Decision.LIFETIME_RULE, kept),
        ]
    counts = count_sizes(size[rows])
    ratios: Counter[int] = Counter()
    for one, count in counts.items():
        if count % gradients[one] == 0:
            ratios[count // gradients[one]] += one * count
    ratio, num_bytes = ratios.most_common(1)[0] if ratios else (0, 0)
    total = int(size[rows].sum() + size[sure].sum())
    if num_bytes < NEEDED_SHARE * total or not _has_order(blocks, rows):
        return []
    parameters: list[int] = []
    others: list[int] = []
    for one in counts:
        same = rows[size[rows] == one].tolist()
        if len(same) == ratio * gradients[one]:
            parameters += same[: gradients[one]]
            others += same[gradients[one] :]
    chosen: Chosen = [(Category.PARAMETER, Decision.LIFETIME_RULE, np.array(parameters, np.int64))]
    # Where steps make the states, or there are more sets than states, some are another copy, as an average is.
    if not blocks.states and blocks.num_states in (None, ratio - 1):
        chosen.append((Category.OPTIMIZER_STATE, Decision.LIFETIME_RULE, np.array(others, np.int64)))
    return chosen


def _has_order(blocks: Residents, rows: IntArray) -> bool:
    """Return whether it is known in which order these were made: not for what lived before the history."""
    return blocks.is_accelerator or not bool(blocks.lifetimes.is_initial[rows].any())


def _without_gradients(blocks: Residents, rows: IntArray) -> Chosen:
    """Return what the blocks are where no gradient was made: they may have been there before."""
    live = blocks.lifetimes
    if blocks.has_backward and blocks.is_accelerator:
        initial = rows[live.is_initial[rows]]
        sets = sets_of_sizes(initial, live.size_bytes, blocks.num_sets)
        # A second set may be states as well, if gradients are no blocks of their own.
        sets = sets[:1] if blocks.has_collectives else sets
        return [(one, Decision.LIFETIME_RULE, found) for one, found in zip(_SETS, sets, strict=False)]
    return []


def _running_statistics(rows: IntArray, size_bytes: IntArray, gradients: Counter[int]) -> IntArray:
    """Return the running mean and variance of norms, and their counters, where their sizes come too often."""
    sizes = size_bytes[rows]
    at = np.flatnonzero(sizes == _COUNTER_BYTES)
    at = at[(at >= 2)]
    at = at[(sizes[at - 1] == sizes[at - 2])]
    found = np.concatenate([at - 2, at - 1, at])
    left = count_sizes(np.delete(sizes, found))
    # All of them or none: without them as many must be left as there are gradients.
    fits = all(left[one] == gradients[one] for one in np.unique(sizes[at - 1]).tolist())
    return rows[np.sort(found)] if fits else rows[:0]
