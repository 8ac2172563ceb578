"""Ranks of a made-up training run, any number of them and of any length, written as `memtrace record` writes them.

    python -m tests.generated_ranks FOLDER [--ranks 16] [--events 20000]

Every rank trains the same stack of blocks on its own share of tokens, so that ranks differ slightly; the model of the
allocator gives addresses and segments, as on a GPU. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memtrace.forecast.prediction.placed import place
from memtrace.schema.tables import EVENTS, FRAMES, OWNERS, PHASES, SCOPES, STACKS, STEPS, WINDOWS, Table
from memtrace.store.build import build_rank
from memtrace.store.columns import NULL, ColumnTable, dtype_of
from memtrace.store.strings import StringTable
from memtrace.store.trace import RankTrace, Trace
from memtrace.store.writing.trace import write_trace

START_NS = 1_700_000_000_000_000_000
HIDDEN = 64
BLOCKS = 6
WEIGHTS = {"attn.qkv": 3 * HIDDEN, "attn.proj": HIDDEN, "mlp.up": 4 * HIDDEN}
"""Rows of the weights of a block, by the module that holds them; each row has `HIDDEN` elements."""


class _Run:
    """One rank while it is made: what it does is written down row by row, with texts and invented addresses."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.device = f"cuda:{rank % 8}"
        # Clocks of hosts differ.
        self.now = START_NS + 1_000 * rank
        self.rows: dict[Table, list[dict[str, Any]]] = {
            table: [] for table in (EVENTS, STEPS, PHASES, SCOPES, OWNERS, FRAMES, STACKS)
        }
        self._stacks: dict[str, int] = {}
        self._next_address = 1
        self.sizes: dict[int, int] = {}
        """Bytes by address."""
        self.num_placed = 0
        """Events that the allocator will have made of it, without those of segments."""

    def tick(self) -> int:
        self.now += 1_000
        return self.now

    def alloc(self, size_bytes: int, function: str) -> int:
        address, self._next_address = self._next_address, self._next_address + 1
        self.sizes[address] = size_bytes
        self._event("alloc", address, function)
        self.num_placed += 1
        return address

    def free(self, address: int, function: str) -> None:
        self._event("free_requested", address, function)
        self.num_placed += 2

    def own(self, address: int, category: str, name: str, step: int) -> None:
        size = self.sizes[address]
        row = {"time_ns": self.now, "step": step, "device": self.device, "address": address, "size_bytes": size}
        row |= {"tensor_bytes": size, "category": category, "name": name, "dtype": "float32"}
        self.rows[OWNERS].append(row | {"shape": f"{size // (4 * HIDDEN)}x{HIDDEN}"})

    def _event(self, action: str, address: int, function: str) -> None:
        row = {"time_ns": self.tick(), "action": action, "device": self.device, "address": address, "stream": 0}
        self.rows[EVENTS].append(row | {"size_bytes": self.sizes[address], "stack": self._stack(function)})

    def _stack(self, function: str) -> int:
        if function not in self._stacks:
            line = 10 + len(self._stacks)
            for file, name in (("train.py", "main"), ("model.py", function)):
                self.rows[FRAMES].append({"file": file, "line": line, "function": name})
            outer = len(self.rows[STACKS])
            self.rows[STACKS] += [{"frame": outer}, {"frame": outer + 1, "parent": outer}]
            self._stacks[function] = outer + 1
        return self._stacks[function]


def generated_rank(rank: int, world_size: int, *, num_events: int = 20_000) -> RankTrace:
    """Return a rank of as many whole steps as `num_events` take, at least two."""
    run = _Run(rank, world_size)
    # A share of tokens of its own: between 64 and 95.
    _train(run, tokens=64 + (rank * 7) % 32, num_events=num_events)
    strings = StringTable()
    tables = {table.name: _table(table, rows, strings) for table, rows in run.rows.items()}
    whole = {"start_ns": START_NS, "end_ns": run.now, "first_event": 0, "num_events": len(run.rows[EVENTS])}
    windows = [{**whole, "initial_bytes": 0, "num_lost": 0, "reason": "start", "continues": False}]
    tables[WINDOWS.name] = _table(WINDOWS, windows, strings)
    facts = {"source": "recorded", "complete": True, "rank": rank, "world_size": world_size, "local_rank": rank % 8}
    facts |= {"host": f"node{rank // 8:03}", "pid": 1000 + rank, "start_ns": START_NS}
    devices = [{"name": run.device, "capacity_bytes": 1 << 30}]
    built = build_rank(header={**facts, "devices": devices}, strings=strings, tables=tables)
    return place(built, run.device, capacity_bytes=1 << 30).rank


def write_ranks(
    folder: Path, world_size: int, *, num_events: int = 20_000, ranks: Iterable[int] | None = None
) -> list[Path]:
    """Write a run folder with a file a rank, as a launcher with many ranks does, or only `ranks`; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {"memtrace": "0", "command": ["torchrun", "train.py"], "redacted": False, "exit_status": 0, "options": {}}
    paths = {rank: folder / f"rank-{rank:05}.json.gz" for rank in (range(world_size) if ranks is None else ranks)}
    for rank, path in paths.items():
        made = generated_rank(rank, world_size, num_events=num_events)
        write_trace(Trace(header=header, ranks=(made,), path=str(path)), path)
    return list(paths.values())


def _train(run: _Run, *, tokens: int, num_events: int) -> None:
    weights = {
        f"blocks.{block}.{name}": run.alloc(4 * HIDDEN * num_rows, f"make_{name}")
        for block in range(BLOCKS)
        for name, num_rows in WEIGHTS.items()
    }
    state: dict[str, int] = {}
    run.rows[STEPS].append(_step(0, START_NS, run.tick()))
    step, start = 1, run.now
    while run.num_placed < num_events or step <= 2:
        gradients = _forward_and_backward(run, step, tokens, weights)
        optimizer = _phase(run, "optimizer", step)
        for name, weight in weights.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                key = f"{moment} of {name}"
                state[key] = state.get(key) or run.alloc(run.sizes[weight], "make_state")
            run.free(run.alloc(run.sizes[weight], "update"), "update")
        optimizer["end_ns"] = run.tick()
        for category, held in (("parameter", weights), ("gradient", gradients), ("optimizer_state", state)):
            for name, address in held.items():
                run.own(address, category, f"{name}.weight", step)
        run.rows[STEPS].append(_step(step, start, run.tick()))
        start = run.now
        for address in gradients.values():
            run.free(address, "zero_grad")
        step += 1


def _forward_and_backward(run: _Run, step: int, tokens: int, weights: Mapping[str, int]) -> dict[str, int]:
    forward = _phase(run, "forward", step)
    saved: list[tuple[str, int]] = []
    for name in weights:
        scope = {"module": name, "class_name": "Linear", "start_ns": run.tick(), "step": step, "recompute": False}
        for part in ("norm", "matmul", "bias"):
            saved.append((name, run.alloc(4 * HIDDEN * tokens, f"{part} of {name.rpartition('.')[2]}")))
        run.free(run.alloc(8 * HIDDEN * tokens, "cast"), "cast")
        run.rows[SCOPES].append({**scope, "end_ns": run.tick()})
    forward["end_ns"] = run.tick()
    backward = _phase(run, "backward", step)
    gradients: dict[str, int] = {}
    for name, address in reversed(saved):
        passed_on = run.alloc(4 * HIDDEN * tokens, "backward")
        if name not in gradients:
            gradients[name] = run.alloc(run.sizes[weights[name]], "accumulate")
        run.free(address, "backward")
        run.free(passed_on, "backward")
    backward["end_ns"] = run.tick()
    return gradients


def _phase(run: _Run, name: str, step: int) -> dict[str, Any]:
    row = {"phase": name, "step": step, "microbatch": 0, "start_ns": run.tick()}
    run.rows[PHASES].append(row)
    return row


def _step(number: int, start: int, end: int) -> dict[str, Any]:
    row = {"step": number, "start_ns": start, "end_ns": end, "skipped": False, "recorded": True}
    return row | {"num_microbatches": 1 if number else 0}


def _table(table: Table, rows: Sequence[Mapping[str, Any]], strings: StringTable) -> ColumnTable:
    def values(name: str, *, is_text: bool) -> Iterator[int]:
        for row in rows:
            value = row.get(name)
            yield NULL if value is None else strings.id(value) if is_text else value

    columns = {
        column.name: np.array(list(values(column.name, is_text=column.kind == "string")), dtype_of(column))
        for column in table.columns
    }
    return ColumnTable(table, columns)


def main() -> None:
    """Write a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, default=16)
    parser.add_argument("--events", type=int, default=20_000, help="at least so many a rank")
    options = parser.parse_args()
    write_ranks(options.folder, options.ranks, num_events=options.events)


if __name__ == "__main__":
    main()
