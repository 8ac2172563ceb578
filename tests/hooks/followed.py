"""A training loop that memtrace follows in this process: every part of a recording is real but torch and its events."""

from __future__ import annotations

import base64
import json
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from time import time_ns
from typing import Any

from memtrace.hooks.loop.main_part import Writer
from memtrace.hooks.loop.training_loop import TrainingLoop
from memtrace.hooks.loop.window import Window
from memtrace.hooks.parts.chunk import EventBatch, Row
from memtrace.hooks.parts.spool import Spool, encode
from memtrace.hooks.parts.status import Status
from memtrace.hooks.sources.high_water import NO_MARK, HighWaterMark
from memtrace.hooks.torch_side.attach import Attachments
from memtrace.hooks.torch_side.guard import Guard
from memtrace.hooks.torch_side.yield_to_program import Yielding
from memtrace.schema import tables
from memtrace.schema.options import RecordOptions
from memtrace.schema.records import PACKED
from tests.hooks.fake_torch import FakeTorch, Tensor

_TABLES = {table.name: table for table in tables.TABLES}


class MemorySpool(Spool):
    """Keeps what would be written."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), rank=None)
        self.records: list[dict[str, Any]] = []
        self.chunks: dict[int, list[dict[str, Any]]] = {}
        self.num_flushes = 0

    def write(self, record: dict[str, Any]) -> None:
        """Keep a record of the main part."""
        self.records.append(record)

    def write_chunk(self, number: int, records: Any) -> bool:
        """Keep a chunk."""
        lines = [record if isinstance(record, bytes) else encode(record) for record in records]
        self.chunks[number] = [json.loads(line) for line in b"".join(lines).splitlines()]
        return True

    def drop_chunk(self, number: int) -> None:
        """Drop a chunk."""
        self.chunks.pop(number, None)

    def flush(self) -> None:
        """Count that what was written so far is safe."""
        self.num_flushes += 1


class FakeSources:
    """Sources without events; they know whether they would record, and Python frames with it."""

    def __init__(self) -> None:
        self.recording = True
        self.has_frames_on = False
        self.chosen_by: list[str] = []
        self.is_profiler = False
        self.sees_all_threads = False

    @property
    def counts_marks(self) -> bool:
        """Return that no counter of an accelerator is asked."""
        return False

    @property
    def dumps_history(self) -> bool:
        """Return that nothing is dumped."""
        return False

    def take_mark(self) -> HighWaterMark:
        """Return that no mark is known."""
        return NO_MARK

    def choose(self, module: Any) -> None:
        """Note the class of the model that the device is chosen by; the model itself may go."""
        self.chosen_by.append(type(module).__name__)

    def tell_of_many_events(self, function: Any) -> None:
        """There are never many."""

    def should_switch(self, frames: bool) -> bool:
        """Return whether frames are recorded and should not be, or the other way round."""
        return self.recording and frames != self.has_frames_on

    def cannot_switch(self) -> bool:
        """Return that a drain may stop the source at any time."""
        return False

    def uses_profiler(self) -> bool:
        """Return what the test says."""
        return self.is_profiler

    def holds_events(self) -> bool:
        """Return what the test says."""
        return self.is_profiler

    def start(self, *, frames: bool = False) -> None:
        """Record, with frames or without."""
        self.recording, self.has_frames_on = True, frames

    def pause(self) -> None:
        """Record nothing."""
        self.recording = self.has_frames_on = False

    def drain(self, _path: object, *, keep: bool, final: bool) -> EventBatch:
        """Return no events; the source has stopped."""
        self.recording = self.has_frames_on = False
        return EventBatch("fake")

    def shrink_ring(self, num_steps: int) -> None:
        """There is no ring."""

    def levels(self) -> dict[str, Any]:
        """Return no levels."""
        return {}

    def totals(self) -> dict[str, int | None]:
        """Return no totals."""
        return {}

    def new_devices(self) -> tuple[dict[str, Any], ...]:
        """Return no devices."""
        return ()

    def history_module(self) -> None:
        """Return that there is no memory history."""


class Followed:
    """A fake torch with memtrace's callbacks hung onto it, and what they wrote."""

    def __init__(self, fake: FakeTorch, folder: Path, *, steps: str) -> None:
        self.fake = fake
        self.start_ns = time_ns()
        self.spool = MemorySpool(folder)
        self.sources: Any = FakeSources()
        self.lost: list[int] = []
        options = RecordOptions(parts_dir=str(folder), steps=steps)
        writer = Writer(self.spool, redact=False)
        writer.sources = self.sources
        self.window = Window(options, self.spool, self.sources, start_ns=self.start_ns, on_lost=self.lost.append)
        self.status = Status(str(folder), "fake", levels=self.sources.levels)
        self.loop = TrainingLoop(fake.torch, self.window, self.sources, writer, self.status, self.start_ns)
        self.guard = Guard(writer.warn, lambda: False)
        yielding = Yielding(self.window, self.sources, writer)
        self.attachments = Attachments(fake.torch, self.guard, self.loop, yielding)

    def attach(self) -> None:
        """Hang the callbacks onto torch."""
        self.attachments.add()
        self.attachments.add_module_hooks()

    def rows(self, table: str, **having: object) -> list[dict[str, Any]]:
        """Return the rows of a table in the order in which they were made, those with these values in their columns."""
        columns = _TABLES[table].column_names()
        found = [row for number in sorted(self.spool.chunks) for row in chunk_rows(self.spool.chunks[number], table)]
        found += [dict(zip(columns, row, strict=True)) for row in self._pending(table)]
        return [row for row in found if all(row[name] == value for name, value in having.items())]

    def _pending(self, table: str) -> list[Row]:
        chunk = self.window.chunk
        if table == "saved":
            return [row for walk in chunk.saved for row in walk]
        sweeps: list[Any] = chunk.sweeps if table == "owners" else []
        return [*getattr(chunk, table), *(row for sweep in sweeps for row in sweep)]

    def phases(self, **having: object) -> list[tuple[str, int, int]]:
        """Return phase, step and microbatch of each phase that has ended."""
        return [(row["phase"], row["step"], row["microbatch"]) for row in self.rows("phases", **having)]

    def written(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of the main part of this kind."""
        return [record for record in self.spool.records if record["k"] == kind]

    def steps(self) -> list[int]:
        """Return the numbers of the steps that were written."""
        return [record["step"] for record in self.written("step")]

    def facts(self) -> dict[str, Any]:
        """Return the facts that were written."""
        return {name: value for record in self.written("facts") for name, value in record.items() if name != "k"}

    def warnings(self) -> list[str]:
        """Return the slugs of the warnings."""
        return [record["slug"] for record in self.written("warning")]

    def kept_steps(self) -> set[int]:
        """Return the steps of the chunks that were written and not dropped."""
        return {chunk[0]["step"] for chunk in self.spool.chunks.values()}


def chunk_rows(chunk: list[dict[str, Any]], table: str) -> list[dict[str, Any]]:
    """Return the rows of a table in the records of a chunk."""
    texts = {column.name for column in _TABLES[table].columns if column.kind == "string"}
    rows = []
    strings: list[str] = []
    for record in chunk:
        if record["k"] == "strings":
            strings = record["values"]
        elif record["k"] == table:
            columns = {name: _unpacked(values) for name, values in record["columns"].items()}
            num_rows = next(len(values) for values in columns.values() if isinstance(values, list))
            # One value may stand for all rows.
            lists = [values if isinstance(values, list) else [values] * num_rows for values in columns.values()]
            for values in zip(*lists, strict=True):
                row = dict(zip(columns, values, strict=True))
                rows.append({name: _text(value, strings) if name in texts else value for name, value in row.items()})
    return rows


def _unpacked(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    ((kind, text),) = values.items()
    words = base64.b64decode(text)
    code = {PACKED[struct.calcsize(code)]: code for code in "biq"}[kind]
    return list(struct.unpack(f"<{len(words) // struct.calcsize(code)}{code}", words))


def _text(value: int | None, strings: list[str]) -> str | None:
    return None if value is None else strings[value]


def in_thread(work: Callable[[], object]) -> None:
    """Run something in a thread of its own, and fail as it fails."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


class Program:
    """A model with one parameter and one optimizer, and the loop that trains them."""

    def __init__(self, fake: FakeTorch, *, optimized: bool = True) -> None:
        self.fake = fake
        self.weight = Tensor(3, 2)
        self.model = fake.model_class("Net")(weight=self.weight)
        self.optimizer = fake.optimizer_class("SGD")([self.weight], lr=0.1) if optimized else None

    def pass_once(self, **about: Any) -> None:
        """Run a forward and a backward."""
        self.model(Tensor(5))
        self.fake.loss(of=[self.weight], **about).backward()

    def step(self, num_microbatches: int = 1) -> None:
        """Run one step of gradient accumulation."""
        for _ in range(num_microbatches):
            self.pass_once()
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()


def expected(step: int, microbatch: int, *phases: str) -> list[tuple[str, int, int]]:
    """Return what `Followed.phases` gives for these phases of one microbatch."""
    return [(phase, step, microbatch) for phase in phases]
