"""The events of a recording, joined from its chunks: windows, the blocks live at their starts, the last snapshot.

Chunks of the CPU hold events as columns. A chunk of an accelerator stands beside a snapshot that torch dumped, whose
history is the chunk's events. A dump does not empty torch's ring, so a snapshot may repeat events of the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.paused_gc import paused_gc
from memtrace.schema.names import Action
from memtrace.schema.records import PART_SUFFIX, SNAPSHOT_SUFFIX
from memtrace.schema.tables import EVENTS, INITIAL_BLOCKS, KEEPERS, OWNERS, WINDOWS
from memtrace.store.build import concatenated
from memtrace.store.columns import NULL, Array, ColumnTable, IntArray
from memtrace.store.opening import open_regular
from memtrace.store.parts.chunk import Chunk
from memtrace.store.reconcile import reconcile
from memtrace.store.snapshots.history import History, SnapshotReading
from memtrace.store.snapshots.packed_events import load_snapshot
from memtrace.store.snapshots.torch_snapshot import SnapshotTables, initial_block_columns, read_snapshot_tables
from memtrace.store.stacks import StackTable
from memtrace.store.strings import StringTable
from memtrace.store.trace import LoadWarning

_OF_ONE_SNAPSHOT = frozenset({"stray-events", "no-history", "history-overflowed"})
"""Warnings about one snapshot that say nothing about a recording of many; the last is a guess without a known limit."""

_TIME_SLACK_NS = 10_000
"""By how much the time of the same event may differ in two snapshots: each fits the clock anew."""


@dataclass(slots=True)
class GatheredEvents:
    """Everything of a recording that has to do with events."""

    tables: dict[str, ColumnTable] = field(default_factory=dict)
    annotations: list[Mapping[str, Array]] = field(default_factory=list)
    allocator_settings: dict[str, Any] = field(default_factory=dict)
    warnings: list[LoadWarning] = field(default_factory=list)


@dataclass(slots=True)
class _Window:
    """One window while it is gathered."""

    chunk: Chunk
    events: dict[str, IntArray]
    continues: bool
    initial: list[dict[str, IntArray]] = field(default_factory=list)
    """Columns device, address, size_bytes, stack of blocks live at its start."""
    initial_bytes: int | None = None
    num_lost: int | None = 0

    @property
    def start_ns(self) -> int | None:
        """When it begins. A chunk begins where the one before was written; of what a dump holds from before that, what
        was kept begins where the rolling window did."""
        kept_from = None if self.continues else self.chunk.fact("keep_from_ns")
        return self.chunk.fact("start_ns") if kept_from is None else kept_from


def gather_events(
    chunks: Sequence[Chunk], strings: StringTable, stacks: StackTable, *, devices: Sequence[Mapping[str, Any]]
) -> GatheredEvents:
    """Return the events of all chunks, in the order of the chunks."""
    gathered = GatheredEvents()
    dumps = _Dumps(strings=strings, stacks=stacks, kind=_accelerator_kind(devices), gathered=gathered)
    chunk_numbers = frozenset(chunk.number for chunk in chunks)
    windows: list[_Window] = []
    run: list[_Window] = []
    for chunk in sorted(chunks, key=lambda one: one.number):
        snapshot = chunk.path.with_name(chunk.path.name.removesuffix(PART_SUFFIX) + SNAPSHOT_SUFFIX)
        if snapshot.exists():
            windows += dumps.windows(chunk, snapshot, chunk_numbers)
        events = chunk.events()
        if events is None:
            continue
        window = _cpu_window(chunk, events)
        if windows and not _follows(windows[-1].chunk.number, chunk.number, chunk_numbers):
            window.continues = False
        if not window.continues:
            _reconcile_run(run, strings, gathered)
            run = []
        run.append(window)
        windows.append(window)
    _reconcile_run(run, strings, gathered)
    gathered.tables |= _tables(windows, strings)
    if dumps.last is not None:
        gathered.tables |= dumps.last.segments.tables
    return gathered


def _follows(before: int, number: int, known: frozenset[int]) -> bool:
    """Return whether every chunk between two is there: a rolling window drops whole chunks."""
    return all(between in known for between in range(before + 1, number))


def _cpu_window(chunk: Chunk, events: dict[str, IntArray]) -> _Window:
    return _Window(
        chunk=chunk,
        events=events,
        continues=chunk.facts.get("continues") is True,
        initial_bytes=chunk.fact("initial_bytes"),
        num_lost=chunk.fact("num_lost"),
    )


def _reconcile_run(run: list[_Window], strings: StringTable, gathered: GatheredEvents) -> None:
    """Make the events of windows that follow each other without a gap consistent. Affects: the windows."""
    if not run:
        return
    run[0].continues = False
    joined = {name: np.concatenate([one.events[name] for one in run]) for name in EVENTS.column_names()}
    joined["window"] = np.repeat(np.arange(len(run)), [len(one.events["action"]) for one in run])
    whole = reconcile(joined, alloc=strings.id(Action.ALLOC.value), free=strings.id(Action.FREE_COMPLETED.value))
    number = whole.columns["window"]
    for at, window in enumerate(run):
        window.events = {name: whole.columns[name][number == at] for name in EVENTS.column_names()}
    run[0].initial.append(
        {
            "device": whole.initial_device,
            "address": whole.initial_address,
            "size_bytes": whole.initial_size_bytes,
            "stack": np.full(len(whole.initial_address), NULL, np.int64),
        }
    )
    known = np.unique(whole.columns["address"])
    living = _living_before(run, known=known)
    if living is not None:
        run[0].initial.append(living)
        known = np.union1d(known, living["address"])
    owned = _owned_before(run, known=known)
    if owned is not None:
        run[0].initial.append(owned)
        known = np.union1d(known, owned["address"])
    kept = _kept_before(run, known=known)
    if kept is not None:
        run[0].initial.append(kept)
    num_frees, num_allocs = whole.num_frees_not_seen, whole.num_allocs_not_seen
    for slug, message, count in (
        ("free-not-seen", "Blocks were freed where the recorder does not see: another thread, a gap.", num_frees),
        ("alloc-not-seen", "Blocks were allocated where the recorder does not see: another thread, a gap.", num_allocs),
    ):
        if count:
            gathered.warnings.append(LoadWarning(slug=slug, message=message, count=count))


def _living_before(run: Sequence[_Window], *, known: IntArray) -> dict[str, IntArray] | None:
    """Return the blocks that the recorder itself knew when it began, and that no event of the run touched."""
    blocks = concatenated(INITIAL_BLOCKS, run[0].chunk.tables.get(INITIAL_BLOCKS.name, ()))
    rows = np.flatnonzero(~np.isin(blocks["address"], known))
    names = ("device", "address", "size_bytes", "stack")
    return {name: blocks[name][rows] for name in names} if len(rows) else None


def _owned_before(run: Sequence[_Window], *, known: IntArray) -> dict[str, IntArray] | None:
    """Return the storages whose owner was seen first after the start, and that no event of the run touched."""
    owners = concatenated(OWNERS, [piece for one in run for piece in one.chunk.tables.get(OWNERS.name, ())])
    if not len(owners):
        return None
    device = run[0].events["device"]
    is_first = owners["time_ns"] == owners["time_ns"].min()
    rows = np.flatnonzero(is_first & ~np.isin(owners["address"], known) & np.isin(owners["device"], np.unique(device)))
    # Several tensors may own one storage (tied weights).
    rows = rows[np.sort(np.unique(owners["address"][rows], return_index=True)[1])]
    return {
        "device": owners["device"][rows],
        "address": owners["address"][rows],
        "size_bytes": owners["size_bytes"][rows],
        "stack": np.full(len(rows), NULL, np.int64),
    }


def _kept_before(run: Sequence[_Window], *, known: IntArray) -> dict[str, IntArray] | None:
    """Return the storages that something was found to keep, and that no event of the run touched."""
    kept = concatenated(KEEPERS, [piece for one in run for piece in one.chunk.tables.get(KEEPERS.name, ())])
    rows = np.flatnonzero(
        ~np.isin(kept["address"], known) & np.isin(kept["device"], np.unique(run[0].events["device"]))
    )
    if not len(rows):
        return None
    rows = rows[np.sort(np.unique(kept["address"][rows], return_index=True)[1])]
    return {
        **{name: kept[name][rows] for name in ("device", "address", "size_bytes")},
        "stack": np.full(len(rows), NULL, np.int64),
    }


def _tables(windows: Sequence[_Window], strings: StringTable) -> dict[str, ColumnTable]:
    """Return the tables events, windows and initial_blocks."""
    counts = np.array([len(one.events["action"]) for one in windows], np.int64)
    columns: dict[str, Any] = {
        "start_ns": _nullable([one.start_ns for one in windows]),
        "end_ns": _nullable([one.chunk.fact("end_ns") for one in windows]),
        "first_event": np.cumsum(counts) - counts,
        "num_events": counts,
        "initial_bytes": _nullable([one.initial_bytes for one in windows]),
        "num_lost": _nullable([one.num_lost for one in windows]),
        "reason": np.array([strings.id(str(one.chunk.facts.get("reason", "start"))) for one in windows], np.int64),
        "continues": np.array([one.continues for one in windows], np.bool_),
    }
    blocks = [
        {"window": np.full(len(piece["address"]), at, np.int64), **piece}
        for at, one in enumerate(windows)
        for piece in one.initial
    ]
    return {
        EVENTS.name: concatenated(EVENTS, [one.events for one in windows]),
        WINDOWS.name: ColumnTable(WINDOWS, columns),
        INITIAL_BLOCKS.name: concatenated(INITIAL_BLOCKS, blocks),
    }


def _nullable(values: Sequence[int | None]) -> IntArray:
    return np.array([NULL if value is None else value for value in values], np.int64)


def _accelerator_kind(devices: Sequence[Mapping[str, Any]]) -> str:
    """Return what the devices of torch's dumps are called: the kind before the colon in the names of the header."""
    names = (str(one.get("name", "")) for one in devices)
    return next((name.partition(":")[0] for name in names if ":" in name), "cuda")


@dataclass(slots=True)
class _Dumps:
    """Reads the snapshots of a recording one after the other."""

    strings: StringTable
    stacks: StackTable
    kind: str
    gathered: GatheredEvents
    last: SnapshotTables | None = None
    last_number: int = -1
    """Number of the chunk of the snapshot before."""
    previous: dict[int, History] = field(default_factory=dict)
    """The history before, by device (a string id)."""

    def windows(self, chunk: Chunk, path: Path, chunk_numbers: frozenset[int]) -> list[_Window]:
        """Return a window for each device that has new events in a dump."""
        reading = SnapshotReading(
            kind=self.kind,
            strings=self.strings,
            stacks=self.stacks,
            max_entries=chunk.fact("max_entries"),
            keep_from_ns=chunk.fact("keep_from_ns"),
            previous={device: history.columns for device, history in self.previous.items()},
        )
        try:
            with paused_gc(), open_regular(path) as file:
                data = load_snapshot(file, size_bytes=path.stat().st_size, where=path.name)
                snapshot = read_snapshot_tables(data, reading, where=path.name)
        except (TraceReadError, OSError) as error:
            message = error.message if isinstance(error, TraceReadError) else f"{path.name}: {error.strerror}"
            warning = LoadWarning(slug="chunk-unreadable", message=f"A snapshot could not be read: {message}")
            self.gathered.warnings.append(warning)
            return []
        finally:
            self.stacks.forget_identities()
        ignored = _OF_ONE_SNAPSHOT if reading.max_entries is None else _OF_ONE_SNAPSHOT - {"history-overflowed"}
        self.gathered.warnings += [one for one in reading.warnings if one.slug not in ignored]
        self._take_annotations(snapshot)
        nothing_dropped = _follows(self.last_number, chunk.number, chunk_numbers)
        found = [
            self._window(chunk, history, nothing_dropped)
            for history in snapshot.histories
            if len(history.columns["action"])
        ]
        self.last, self.last_number = snapshot, chunk.number
        self.gathered.allocator_settings |= snapshot.allocator_settings
        self.previous |= {one.device_id: one for one in snapshot.histories if len(one.columns["action"])}
        return found

    def _window(self, chunk: Chunk, history: History, nothing_dropped: bool) -> _Window:
        before = self.previous.get(history.device_id)
        # Told by the recording, and checked: what was live at the end of the one is live at the start of the other.
        continues = (
            before is not None
            and nothing_dropped
            and not history.num_unwanted
            and chunk.facts.get("continues") is True
            and np.array_equal(np.sort(before.final.address), history.initial.address)
        )
        return _Window(
            chunk=chunk,
            events=history.columns,
            continues=continues,
            initial=[] if continues else [initial_block_columns(history)],
            initial_bytes=int(history.initial.size_bytes.sum()),
            num_lost=chunk.fact("num_lost"),
        )

    def _take_annotations(self, snapshot: SnapshotTables) -> None:
        """Keep the annotations; those that a later snapshot repeats are taken from it, where they may have ended."""
        table = snapshot.annotations
        if not len(table):
            return
        first_ns = int(np.min(table["start_ns"]))
        kept = [piece["start_ns"] < first_ns - _TIME_SLACK_NS for piece in self.gathered.annotations]
        self.gathered.annotations = [
            {name: values[rows] for name, values in piece.items()}
            for piece, rows in zip(self.gathered.annotations, kept, strict=True)
        ]
        self.gathered.annotations.append(table.columns)
