"""A comparison of two reports as Markdown, for a comment on a pull request.

In: `Diff`. Out: text. Names come out of files: they stand in code spans, where neither markup nor a mention works.
"""

from __future__ import annotations

from collections.abc import Sequence

from memtrace.analysis.results.diff import Diff, RankDiff
from memtrace.report.answers.diff import MAX_ROWS, category, delta, size
from memtrace.report.exchange.markdown import code, table
from memtrace.schema.frames import own_frames

_Row = tuple[str, int | None, int | None]


def diff_markdown(diff: Diff) -> str:
    """Return the comparison as a block of Markdown: the verdict and what the peaks are made of, the rest folded."""
    lines = [f"### memtrace diff: {code(diff.verdict)}", "", f"A: {code(diff.title_a)}, B: {code(diff.title_b)}"]
    for rank in diff.ranks:
        if len(diff.ranks) > 1:
            lines += ["", f"**{code(('' if rank.rank is None else f'rank {rank.rank}, ') + rank.device_b)}**"]
        lines += _of_rank(rank)
    for side, names in (("A", diff.only_in_a), ("B", diff.only_in_b)):
        if names:
            lines += ["", f"Only in {side}: {code(', '.join(names))}"]
    return "\n".join(lines) + "\n"


def _of_rank(rank: RankDiff) -> list[str]:
    figures: list[_Row] = [(f"peak, {rank.compares}", rank.peak_a_bytes, rank.peak_b_bytes)]
    if rank.reserved_a_bytes is not None or rank.reserved_b_bytes is not None:
        figures.append(("largest reserved", rank.reserved_a_bytes, rank.reserved_b_bytes))
    figures += [(category(one.name), one.a_bytes, one.b_bytes) for one in rank.categories if one.delta_bytes]
    lines = ["", *_table("at the peak", figures)]
    modules = [(one.name or "outside any module", one.a_bytes, one.b_bytes) for one in rank.modules]
    stacks: list[_Row] = [
        ((own_frames(one.frames) or ["no stack recorded"])[0], one.a_bytes, one.b_bytes) for one in rank.stacks
    ]
    for heading, rows in (("module", modules), ("line", stacks)):
        if rows:
            lines += ["", f"<details><summary>By {heading}</summary>", "", *_table(heading, rows), "", "</details>"]
    return lines


def _line(frames: Sequence[str]) -> str:
    return (own_frames(frames) or ["no stack recorded"])[0]


def _table(heading: str, rows: Sequence[_Row]) -> list[str]:
    cells = [(code(name), size(a), size(b), delta(a, b)) for name, a, b in rows[:MAX_ROWS]]
    return table((heading, "A", "B", "B - A"), cells)
