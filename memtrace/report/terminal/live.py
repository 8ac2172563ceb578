"""A running recording in a terminal: a frame that is drawn again and again, or lines where nobody watches.

In: `LiveRun`. Out: text. Every number is a field of the result; names pass `clean`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from memtrace.launch.live_results import LiveRank, LiveRun, RankState
from memtrace.printable import clean
from memtrace.report.terminal.cells import DASH, category_name, filled_table, section, size
from memtrace.schema.names import Category
from memtrace.units import format_ns

MAX_RANKS = 24
"""Ranks of a frame; those in trouble come first."""
MAX_LINES = 6
"""Sentences of a section."""
WIDTH = 100
_SECOND = 10**9
_IN_TROUBLE = {RankState.GONE: "bold red", RankState.SILENT: "yellow"}
_STYLES = {**_IN_TROUBLE, RankState.ENDED: "dim", RankState.STARTING: "dim"}


class Screen(Protocol):
    """Where a run is shown."""

    def show(self, run: LiveRun) -> None:
        """Show how the run is now."""


@contextmanager
def screen(file: IO[str]) -> Iterator[Screen]:
    """Return where to show a run: a frame that is drawn over in a terminal, else a line for each rank that moved."""
    console = _console(file)
    if not console.is_terminal:
        yield _Lines(file)
        return
    with Live(console=console, auto_refresh=False, transient=False, vertical_overflow="crop") as live:
        yield _Frames(live)


def print_frame(run: LiveRun, file: IO[str]) -> None:
    """Print one frame."""
    console = _console(file)
    with console.capture() as captured:
        console.print(_frame(run))
    file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _console(file: IO[str]) -> Console:
    console = Console(file=file, highlight=False, markup=False, emoji=False, legacy_windows=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console


class _Frames:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, run: LiveRun) -> None:
        self._live.update(_frame(run), refresh=True)


class _Lines:
    """A line for each rank that got on, so that a log of many hours stays readable."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._shown: dict[tuple[int | None, int | None], object] = {}

    def show(self, run: LiveRun) -> None:
        for rank in run.ranks:
            key, news = (rank.rank, rank.pid), (rank.state, rank.step)
            if self._shown.get(key) != news:
                self._shown[key] = news
                self._file.write(_line(rank) + "\n")
        if run.is_over:
            self._file.write("the recording is over\n")
        self._file.flush()


def _line(rank: LiveRank) -> str:
    sizes = [
        f"{name} {size(value)}"
        for name, value in (
            ("allocated", rank.allocated_bytes),
            ("peak", rank.peak_allocated_bytes),
            ("reserved", rank.reserved_bytes),
        )
        if value is not None
    ]
    pace = [] if rank.step_ns is None else [f"{format_ns(rank.step_ns)} a step"]
    return "  ".join([_name(rank), _state(rank), f"step {_step(rank)}", *pace, *sizes])


def _frame(run: LiveRun) -> Group:
    order = sorted(run.ranks, key=lambda one: one.state not in _IN_TROUBLE)
    shown = order[:MAX_RANKS]
    parts: list[RenderableType] = [_head(run)]
    if shown:
        parts += ["", _ranks(shown)]
    if len(order) > len(shown):
        parts.append(Text(f"and {len(order) - len(shown)} more ranks", style="dim"))
    trouble = _trouble(order)
    if trouble:
        parts += section("Trouble", Group(*trouble))
    if any(one.by_category for one in shown):
        parts += section("Held at the end of a step", _categories([one for one in shown if one.by_category]))
    elif shown and not run.is_over:
        parts += ["", Text("What the bytes are for is known from the end of the first recorded step on.", style="dim")]
    warnings = _warnings(run.ranks)
    if warnings:
        parts += section("Not seen", Group(*warnings))
    return Group(*parts)


def _head(run: LiveRun) -> Text:
    at_work = sum(one.state in (RankState.STARTING, RankState.RUNNING) for one in run.ranks)
    state = f"{at_work} of {len(run.ranks)} running"
    if run.is_over:
        state = "the recording is over"
    elif not run.ranks:
        state = "waiting for a process that imports torch"
    head = Text(f"{clean(run.title)}: {state}", style="bold")
    if run.num_others:
        others = "1 more process does" if run.num_others == 1 else f"{run.num_others} more processes do"
        head.append(f"  {others} not train", style="dim")
    return head


def _ranks(ranks: Sequence[LiveRank]) -> Table:
    rows = []
    for one in ranks:
        reserved, capacity = one.reserved_bytes, one.capacity_bytes
        share = None if reserved is None or not capacity else reserved / capacity
        rows.append(
            (
                _name(one),
                _step(one),
                DASH if one.step_ns is None else format_ns(one.step_ns),
                size(one.allocated_bytes),
                size(one.peak_allocated_bytes),
                size(one.reserved_bytes),
                DASH if share is None else f"{100 * share:.0f} %",
                Text(_state(one), style=_STYLES.get(one.state, "")),
            )
        )
    names = ("", "step", "a step", "allocated", "peak", "reserved", "of device")
    return filled_table(names, rows, wide="")


def _categories(ranks: Sequence[LiveRank]) -> Table:
    names = [one.value for one in Category if any(one.value in rank.by_category for rank in ranks)]
    rows = [
        (
            _name(one),
            DASH if one.categories_step is None else str(one.categories_step),
            *(size(one.by_category.get(name)) for name in names),
            size(_unattributed(one)),
            "",
        )
        for one in ranks
    ]
    return filled_table(("", "step", *map(category_name, names), "other"), rows, wide="")


def _unattributed(rank: LiveRank) -> int | None:
    """Return what is allocated beside what owners hold, where both were read at the end of the same step."""
    if rank.allocated_bytes is None or rank.measured_step != rank.categories_step:
        return None
    return max(rank.allocated_bytes - sum(rank.by_category.values()), 0)


def _warnings(ranks: Sequence[LiveRank]) -> list[Text]:
    by_warning: dict[tuple[str, str], list[LiveRank]] = {}
    for rank in ranks:
        for one in rank.warnings:
            by_warning.setdefault((one.slug, one.message), []).append(rank)
    found = [
        Text(f"{DASH} {clean(message)}").append(
            f" [{clean(slug)}]" + (f" ({len(of)} ranks)" if len(of) > 1 else ""), style="dim"
        )
        for (slug, message), of in by_warning.items()
    ]
    more = len(found) - MAX_LINES
    return found[:MAX_LINES] + ([Text(f"{DASH} and {more} more", style="dim")] if more > 0 else [])


def _trouble(ranks: Sequence[LiveRank]) -> list[Text]:
    """Return a sentence for each rank that died, is silent or ran out of memory."""
    found: list[str] = []
    for one in ranks:
        where = f"in {_phase(one)} of step {_step(one)}" if one.phase else "before training"
        if one.state is RankState.GONE:
            found.append(f"{_name(one)}: process {one.pid} is gone, {where}; it last wrote {_ago(one.age_ns)} ago")
        elif one.state is RankState.SILENT:
            found.append(f"{_name(one)}: nothing was written for {_ago(one.age_ns)}, {where}")
        if one.num_alloc_retries:
            times = "once" if one.num_alloc_retries == 1 else f"{one.num_alloc_retries} times"
            found.append(f"{_name(one)}: the device was full {times}, and the allocator emptied its cache")
    more = [f"and {len(found) - MAX_LINES} more"] if len(found) > MAX_LINES else []
    return [Text(f"{DASH} {line}") for line in (*found[:MAX_LINES], *more)]


def _name(rank: LiveRank) -> str:
    return f"process {rank.pid or ''}".rstrip() if rank.rank is None else f"rank {rank.rank}"


def _step(rank: LiveRank) -> str:
    return DASH if rank.step is None else str(rank.step)


def _state(rank: LiveRank) -> str:
    """Return how a rank is doing: the phase it is in, and for how long where that is long."""
    if rank.state is RankState.STARTING:
        return "before training"
    if rank.state is not RankState.RUNNING:
        return str(rank.state.value)
    is_long = rank.phase_ns is not None and rank.phase_ns >= 2 * _SECOND
    return _phase(rank) + (f", {_ago(rank.phase_ns)}" if is_long else "")


def _phase(rank: LiveRank) -> str:
    return DASH if rank.phase is None else clean(rank.phase)


def _ago(duration_ns: int | None) -> str:
    """Return a duration in whole seconds: one that is redrawn each second must not flicker in its digits.

    >>> _ago(2_700_000_000), _ago(75 * 10**9), _ago(None)
    ('2 s', '1 min 15 s', 'a while')
    """
    if duration_ns is None:
        return "a while"
    minutes, seconds = divmod(duration_ns // _SECOND, 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
