"""The pools of an allocator, in a terminal: what was reserved and could not be used, when reserved memory was largest
and over time."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from memtrace.analysis.results.report import FragmentationMoment, FragmentationResult, PoolState
from memtrace.printable import clean
from memtrace.report.terminal.cells import calm_table, size

_MAX_MOMENTS = 6


def fragmentation(found: FragmentationResult) -> Table:
    """Return the pools of the first moment, then the totals of some later ones."""
    table = calm_table("", "reserved", "allocated", "rounding", "free", "in pieces", "largest free")
    first, *later = found.moments
    for pool in first.pools:
        table.add_row(clean(f"{_name(first)}, {pool.pool}"), *_cells([pool]))
    table.add_section()
    shown = later if len(later) <= _MAX_MOMENTS else later[-_MAX_MOMENTS:]
    for moment in shown:
        table.add_row(clean(_name(moment)), *_cells(moment.pools))
    return table


def _name(moment: FragmentationMoment) -> str:
    return moment.name if moment.step is None else f"{moment.name} {moment.step}"


def _cells(pools: Sequence[PoolState]) -> list[str]:
    """Return the sums of some pools; rounding is not known where one of them does not know it."""
    rounding = [pool.internal_bytes for pool in pools]
    known = [one for one in rounding if one is not None]
    return [
        size(sum(pool.reserved_bytes for pool in pools)),
        size(sum(pool.allocated_bytes for pool in pools)),
        size(sum(known) if len(known) == len(rounding) else None),
        size(sum(pool.free_bytes for pool in pools)),
        size(sum(pool.split_bytes for pool in pools)),
        size(max((pool.largest_free_block_bytes for pool in pools), default=0)),
    ]
