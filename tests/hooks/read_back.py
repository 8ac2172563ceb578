"""What was followed in this process, read back as a report would read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memtrace.hooks.parts.spool import encode
from memtrace.schema.records import CHUNK_INFIX, PART_SUFFIX
from memtrace.store.reading.read import read_trace
from tests.builders import contents, parts
from tests.hooks.followed import Followed


def read_back(followed: Followed, folder: Path) -> dict[str, Any]:
    """Return the trace of a program that ends here, as plain values."""
    followed.loop.break_off()
    followed.window.drain("exit", resume=False)
    built = parts(folder, "process-host-7-0000").header()
    with built.main.open("ab") as file:
        file.write(b"".join(map(encode, followed.spool.records)))
    for number, chunk in followed.spool.chunks.items():
        path = folder / f"{built.name}{CHUNK_INFIX}{number:06d}{PART_SUFFIX}"
        path.write_bytes(b"".join(map(encode, chunk)))
    built.end()
    (rank,) = read_trace(folder).ranks
    return contents(rank)


def loop_of(read: dict[str, Any]) -> dict[int, list[tuple[str, int]]]:
    """Return the phases of each step, and the microbatches that they are of, in order of time."""
    found: dict[int, list[tuple[str, int]]] = {row["step"]: [] for row in read["steps"] if row["step"]}
    for row in sorted(read["phases"], key=lambda row: row["start_ns"]):
        found.setdefault(row["step"], []).append((row["phase"], row["microbatch"]))
    return found
