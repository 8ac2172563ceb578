"""Two reports compared: what peaks higher, in which category, module, stack and step.

In: two `Report`s, A the older. Out: `Diff`. Ranks and devices are matched by number and place, steps by number, stacks
by their frames: first with their lines, then, for what is left, without, since an edit above moves every line below it.
Lines that both recorded have not moved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from memtrace.analysis.asked.step_curve import step_curve
from memtrace.analysis.results.diff import Diff, NamedDiff, RankDiff, StackDiff, StepDiff
from memtrace.analysis.results.report import Peak, RankReport, Report, StackRow
from memtrace.analysis.sentences.verdict import main_rank
from memtrace.schema.frames import own_frames
from memtrace.schema.names import category_words
from memtrace.units import format_bytes

_LINE = re.compile(r":\d+(?= |$)")
Frames = tuple[str, ...]


def compare(a: Report, b: Report) -> Diff:
    """Return the differences between two reports, B less A."""
    keyed_a, keyed_b = _keyed(a), _keyed(b)
    both = [key for key in keyed_a if key in keyed_b]
    ranks = [_rank_diff(keyed_a[key], keyed_b[key]) for key in both]
    if not ranks and a.ranks and b.ranks:
        # One was recorded on another device, or as another rank: what matters most in each is comparable still.
        at_a, at_b = main_rank(a.ranks) or 0, main_rank(b.ranks) or 0
        ranks, both = [_rank_diff(a.ranks[at_a], b.ranks[at_b])], []
        used_a, used_b = {_key(a.ranks, at_a)}, {_key(b.ranks, at_b)}
    else:
        used_a = used_b = set(both)
    ranks.sort(key=lambda one: -max(one.peak_a_bytes or 0, one.peak_b_bytes or 0))
    return Diff(
        title_a=a.title,
        title_b=b.title,
        verdict=_verdict(ranks),
        ranks=tuple(ranks),
        only_in_a=tuple(_name(key) for key in keyed_a if key not in used_a),
        only_in_b=tuple(_name(key) for key in keyed_b if key not in used_b),
    )


_Key = tuple[int | None, str]


def _keyed(report: Report) -> dict[_Key, RankReport]:
    return {_key(report.ranks, at): rank for at, rank in enumerate(report.ranks)}


def _key(ranks: Sequence[RankReport], at: int) -> _Key:
    """Return rank and device; of several nameless processes, their place stands for the rank."""
    rank = ranks[at]
    alike = [one for one, other in enumerate(ranks) if (other.rank, other.device) == (rank.rank, rank.device)]
    return (rank.rank if len(alike) == 1 else at, rank.device)


def _name(key: _Key) -> str:
    rank, device = key
    return device if rank is None else f"rank {rank} {device}"


def _rank_diff(a: RankReport, b: RankReport) -> RankDiff:
    allocated = a.peak.allocated_bytes is not None and b.peak.allocated_bytes is not None
    categories = _named(_by_category(a.peak), _by_category(b.peak))
    return RankDiff(
        rank=a.rank,
        device_a=a.device,
        device_b=b.device,
        peak_a=a.peak,
        peak_b=b.peak,
        peak_a_bytes=_height(a.peak, allocated=allocated),
        peak_b_bytes=_height(b.peak, allocated=allocated),
        compares="allocated" if allocated else "requested",
        delta_by_category={str(one.name): one.delta_bytes for one in categories if one.delta_bytes},
        categories=categories,
        modules=tuple(one for one in _named(_by_module(a), _by_module(b)) if one.delta_bytes),
        stacks=_stacks(a, b),
        steps=_steps(a, b, allocated=allocated),
        reserved_a_bytes=a.max_reserved_bytes,
        reserved_b_bytes=b.max_reserved_bytes,
        steady_a_bytes=_steady(a, allocated=allocated),
        steady_b_bytes=_steady(b, allocated=allocated),
        leak_a_bytes=sum(one.bytes_per_step for one in a.leaks),
        leak_b_bytes=sum(one.bytes_per_step for one in b.leaks),
        curve_a=step_curve(a, allocated=allocated),
        curve_b=step_curve(b, allocated=allocated),
    )


def _height(peak: Peak, *, allocated: bool) -> int | None:
    return peak.allocated_bytes if allocated else peak.requested_bytes


def _steady(rank: RankReport, *, allocated: bool) -> int | None:
    """Return the peak of the steps after the first, where they were recorded and not predicted."""
    peak = rank.steady_state_peak
    return None if peak is None or peak.predicted else _height(peak, allocated=allocated)


def _by_category(peak: Peak) -> dict[str | None, int]:
    return dict(peak.by_category.items())


def _by_module(rank: RankReport) -> dict[str | None, int]:
    return {row.module: row.num_bytes for row in rank.top_modules}


def _named(a: Mapping[str | None, int], b: Mapping[str | None, int]) -> tuple[NamedDiff, ...]:
    """Return every name of either side, the largest difference first."""
    rows = [
        NamedDiff(name=name, a_bytes=left, b_bytes=right, delta_bytes=right - left)
        for name in dict.fromkeys([*a, *b])
        for left, right in [(a.get(name, 0), b.get(name, 0))]
    ]
    return tuple(sorted(rows, key=lambda row: (-abs(row.delta_bytes), -max(row.a_bytes, row.b_bytes), row.name or "")))


def _stacks(a: RankReport, b: RankReport) -> tuple[StackDiff, ...]:
    """Return the stacks that differ, the largest difference first."""
    left, right = (_summed(side.top_stacks, lambda frames: frames) for side in (a, b))
    stays = {
        frames
        for own, others in ((left, frozenset(b.program_lines)), (right, frozenset(a.program_lines)))
        for frames in own
        if others.issuperset(own_frames(frames))
    }
    same = stays | (left.keys() & right.keys())
    rows = [
        _stack(frames, left.get(frames, 0), right.get(frames, 0))
        for frames in dict.fromkeys([*left, *right])
        if frames in same
    ]
    moved_a, moved_b = ([row for row in side.top_stacks if row.frames not in same] for side in (a, b))
    rest_a, rest_b = _summed(moved_a, _without_lines), _summed(moved_b, _without_lines)
    # Shown with lines: those of B, of A where B has no such stack.
    shown = {_without_lines(row.frames): row.frames for row in (*moved_a, *moved_b)}
    rows += [_stack(shown[key], rest_a.get(key, 0), rest_b.get(key, 0)) for key in dict.fromkeys([*rest_a, *rest_b])]
    found = [row for row in _of_one_line(rows, stays) if row.delta_bytes]
    return tuple(sorted(found, key=lambda row: (-abs(row.delta_bytes), row.frames)))


def _of_one_line(rows: Sequence[StackDiff], stays: Collection[Frames]) -> list[StackDiff]:
    """Return the rows, those of one line of the program together that only one side has: a library took another way."""
    together: dict[Frames, StackDiff] = {}
    found = []
    for row in rows:
        own = tuple(own_frames(row.frames))
        own = own if row.frames in stays else _without_lines(own)
        if (row.a_bytes and row.b_bytes) or not own:
            found.append(row)
            continue
        other = together.get(own)
        frames = row.frames if other is None or row.b_bytes else other.frames
        a_bytes, b_bytes = (0, 0) if other is None else (other.a_bytes, other.b_bytes)
        together[own] = _stack(frames, a_bytes + row.a_bytes, b_bytes + row.b_bytes)
    return [*found, *together.values()]


def _summed(rows: Iterable[StackRow], key: Callable[[Frames], Frames]) -> dict[Frames, int]:
    total: dict[Frames, int] = {}
    for row in rows:
        total[key(row.frames)] = total.get(key(row.frames), 0) + row.num_bytes
    return total


def _stack(frames: Frames, a_bytes: int, b_bytes: int) -> StackDiff:
    return StackDiff(frames=frames, a_bytes=a_bytes, b_bytes=b_bytes, delta_bytes=b_bytes - a_bytes)


def _without_lines(frames: Frames) -> Frames:
    """Return frames without their line numbers.

    >>> _without_lines(("gpt.py:30 forward", "C:/a b.py:7 main"))
    ('gpt.py forward', 'C:/a b.py main')
    """
    return tuple(_LINE.sub("", frame, count=1) for frame in frames)


def _steps(a: RankReport, b: RankReport, *, allocated: bool) -> tuple[StepDiff, ...]:
    """Return every step that either side recorded."""
    sides = []
    for rank in (a, b):
        peaks = {one.step: one.peak_allocated_bytes if allocated else one.peak_requested_bytes for one in rank.steps}
        sides.append({step: peak for step, peak in peaks.items() if peak is not None})
    return tuple(
        StepDiff(
            step=step,
            a_bytes=left,
            b_bytes=right,
            delta_bytes=None if left is None or right is None else right - left,
        )
        for step in sorted({*sides[0], *sides[1]})
        for left, right in [(sides[0].get(step), sides[1].get(step))]
    )


def _verdict(ranks: Sequence[RankDiff]) -> str:
    """Return in a sentence by how much the peak moved, and in which category most."""
    if not ranks:
        return "The two have nothing in common to compare."
    main = ranks[0]
    if main.peak_a_bytes is None or main.peak_b_bytes is None:
        return "One of the two has no peak to compare."
    delta = main.peak_b_bytes - main.peak_a_bytes
    change = f"{format_bytes(main.peak_a_bytes)} to {format_bytes(main.peak_b_bytes)}"
    largest = next((one for one in main.categories if one.delta_bytes), None)
    if largest is None:
        return (
            f"The peak is the same: {format_bytes(main.peak_b_bytes)}, in every category."
            if not delta
            else (f"The peak goes from {change}; every category is the same.")
        )
    name = "unattributed bytes" if largest.name == "unknown" else category_words(str(largest.name))
    most = f"{'+' if largest.delta_bytes > 0 else ''}{format_bytes(largest.delta_bytes)} {name}"
    if not delta:
        return f"The peak is the same, {format_bytes(main.peak_b_bytes)}, made of other things: mostly {most}."
    share = f", {'+' if delta > 0 else ''}{100 * delta / main.peak_a_bytes:.1f} %" if main.peak_a_bytes else ""
    return f"The peak {'rises' if delta > 0 else 'falls'} from {change}{share}: mostly {most}."
