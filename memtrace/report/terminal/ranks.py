"""The ranks of a run in a terminal: a row each of a few, the lowest, the middle and the highest of many.

In: `RanksResult`. Out: what stands under the heading "Ranks" and those after it, as short for 512 ranks as for 16.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memtrace.analysis.results.ranks import Difference, Outlier, RankRow, RanksResult, Scheme, Spread
from memtrace.printable import clean
from memtrace.report.terminal.cells import (
    DASH,
    calm_table,
    category_name,
    filled_table,
    pairs,
    signed_size,
    size,
)

MAX_ROWS = 8
"""With more ranks than this, there is no row a rank."""
_MAX_NAMED = 8
_FAILURES = {"oom": "out of memory", "exception": "ended with an exception", "incomplete": "incomplete"}
_MAX_DIFFERENCES = 3


def overview(ranks: RanksResult) -> RenderableType:
    """Return the peaks of all ranks, and which ranks there are none of."""
    parts: list[RenderableType] = []
    if ranks.num_missing:
        parts.append(Text(f"{len(ranks.ranks)} of {ranks.world_size} ranks were given; no trace of {_named(ranks)}."))
    if len(ranks.ranks) <= MAX_ROWS:
        parts.append(_rows(ranks.ranks))
    else:
        parts += [_spreads(ranks.spreads)] if ranks.spreads else []
        parts += _ended(ranks)
    if ranks.behind:
        parts.append(Text(f"Ended at an earlier step than others: {_numbers(ranks.behind)}."))
    return Group(*parts)


def schemes(found: Sequence[Scheme]) -> Table:
    """Return how the ranks share the work, and what tells."""
    rows = []
    for one in found:
        over = "" if one.factor is None else f" over {one.factor} ranks"
        over = f" on {one.factor} ranks" if over and one.kind in ("ddp", "replicated") else over
        over = f", {one.factor} stages" if over and one.kind == "pp" else over
        text = Text(clean(one.how), style="dim")
        rows.append((clean(one.name) + over, text.append(" Inferred.") if one.inferred else text))
    return pairs(rows)


def differences(outliers: Sequence[Outlier]) -> Table:
    """Return ranks that stand out, and what differs from the one in the middle."""
    table = calm_table("rank", "peak", "difference", wide="what differs from the rank in the middle")
    for one in outliers:
        lines = [
            *_largest("at the peak", [_named_category(part) for part in one.by_category]),
            *_largest("made in", one.by_module),
            *_largest("holds", one.by_parameters),
            *map(clean, one.facts),
        ]
        peak = f"{signed_size(one.excess_bytes)} ({one.excess_pct:+.0f} %)"
        table.add_row(f"{one.rank}", size(one.peak_bytes), peak, "\n".join(lines) or DASH)
    return table


def savings(ranks: RanksResult) -> Group:
    """Return what ZeRO's stages would save at the end of a step, on the ranks that they save least and most on."""
    by_stage = (
        ("ZeRO-1, states", [one.zero_1_bytes for one in ranks.savings]),
        ("ZeRO-2, gradients too", [one.zero_2_bytes for one in ranks.savings]),
        ("ZeRO-3, parameters too", [one.zero_3_bytes for one in ranks.savings]),
    )
    table = calm_table("saved on a rank", "least", "rank", "most", "rank")
    for name, saved in by_stage:
        least, most = saved.index(min(saved)), saved.index(max(saved))
        numbers = (str(ranks.savings[least].rank), str(ranks.savings[most].rank))
        table.add_row(name, size(saved[least]), numbers[0], size(saved[most]), numbers[1])
    doubt = " That they hold the same is inferred from names and shapes." if ranks.savings_inferred else ""
    text = f"{ranks.copies} ranks hold the same state. At the end of a step, were it shared out among them:{doubt}"
    return Group(Text(text), table)


def _rows(rows: Sequence[RankRow]) -> Table:
    cells = [
        (
            clean(f"rank {row.rank}, {row.device}"),
            size(row.peak_bytes),
            size(row.steady_peak_bytes),
            size(row.reserved_bytes),
            size(row.capacity_bytes),
            DASH if row.last_step is None else str(row.last_step),
            _FAILURES.get(row.failure or "", ""),
        )
        for row in rows
    ]
    return filled_table(("", "peak", "steady", "reserved", "device", "last step"), cells, wide="")


def _spreads(spreads: Sequence[Spread]) -> Table:
    table = calm_table("at the peak", "lowest", "rank", "middle", "highest", "rank")
    for one in spreads:
        name = "all" if one.name == "peak" else category_name(one.name)
        if one.min_bytes == one.max_bytes:
            table.add_row(name, "", "", size(one.median_bytes), "", "")
            continue
        lowest, highest = (size(one.min_bytes), str(one.min_rank)), (size(one.max_bytes), str(one.max_rank))
        table.add_row(name, *lowest, size(one.median_bytes), *highest)
    return table


def _ended(ranks: RanksResult) -> list[RenderableType]:
    """Return the ranks that did not end in order, those that stopped first in front."""
    rows = {row.rank: row for row in ranks.ranks}
    lines: list[RenderableType] = []
    for rank in ranks.failed[:_MAX_NAMED]:
        row = rows[rank]
        step = "" if row.last_step is None else f", last step {row.last_step}"
        lines.append(Text(f"Rank {rank}: {_FAILURES[row.failure or 'incomplete']}{step}"))
    if len(ranks.failed) > _MAX_NAMED:
        lines.append(Text(f"and {len(ranks.failed) - _MAX_NAMED} more that did not end in order"))
    return lines


def _named(ranks: RanksResult) -> str:
    """Return the missing ranks by number, the first of many."""
    return _numbers(ranks.missing, total=ranks.num_missing)


def _numbers(numbers: Sequence[int], *, total: int | None = None) -> str:
    """Return numbers in words.

    >>> _numbers((3, 5)), _numbers(range(2, 128))
    ('3, 5', '2, 3, 4, 5, 6, 7, 8, 9 and 118 more')
    """
    more = (len(numbers) if total is None else total) - len(numbers[:_MAX_NAMED])
    return ", ".join(map(str, numbers[:_MAX_NAMED])) + (f" and {more} more" if more else "")


def _named_category(part: Difference) -> Difference:
    return Difference(name=category_name(part.name), num_bytes=part.num_bytes, median_bytes=part.median_bytes)


def _largest(what: str, parts: Sequence[Difference]) -> list[str]:
    """Return a line about the largest differences of one kind."""
    named = [f"{clean(one.name)} {signed_size(one.num_bytes - one.median_bytes)}" for one in parts[:_MAX_DIFFERENCES]]
    return [f"{what}: {', '.join(named)}"] if named else []
