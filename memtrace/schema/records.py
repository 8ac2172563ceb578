"""The records of a part: what a recorded process writes, one JSON object a line, each with its kind under "k".

A process that is recorded writes one *main* part, `<name>.jsonl`, and one file a chunk, `<name>.chunk-000007.jsonl`.
A chunk is a stretch of events drained at once, and is complete in itself: a rolling window drops whole chunks.
What torch dumps natively stands beside a chunk under the same name with another suffix (`.pickle`, `.kineto.json`).

Main part, in order:   header (once) · facts · device · optimizer · bucket · step · warning · lost · end (once, last)
Chunk, in order:       chunk (once) · strings · frames · stacks · events · phases · scopes · owners · saved ·
                       keepers · replica_forwards · reducer_timings · own_work · annotations · chunk_end (once, last: a
                       chunk without it was cut off)

Table records (`events`, `phases` …) hold columns by name, as in `memtrace.schema.tables`; one value that is no list
stands for all rows, and an object `{"int64": "…"}` for a list of integers. String columns hold indices into the
`strings` record of the same chunk that came last: all owners at a moment have strings of their own before them. `facts`
and `end` hold fields of a rank's header that became known later; a reader merges them into the header. A chunk's
`keep_from_ns`, where present, is the time before which the events of a native dump are not wanted (they left the
rolling window). A step's `next_from_ns`, where present, is the time from which on everything that is said to be of it
is of the next one, whose first micro-batch has the number `next_from_microbatch`: with several optimizers, that a step
has ended is known only in the next. Unknown kinds and fields are ignored and counted by readers.
"""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]
"""One line of a part."""

PART_SUFFIX = ".jsonl"
CHUNK_INFIX = ".chunk-"
SNAPSHOT_SUFFIX = ".pickle"
KINETO_SUFFIX = ".kineto.json"
PARTS_SUFFIX = ".parts"
"""Suffix of the folder of parts beside the output."""

TRIGGER_FILE = "trigger.json"
"""File in the folder of parts by which `memtrace trigger` asks for the next steps; read at each step end."""

UNRECORDED_SUFFIX = ".unrecorded"
"""Suffix of an empty file in the folder of parts that a process leaves which trained and was not recorded."""

HEADER = "header"
FACTS = "facts"
DEVICE = "device"
OPTIMIZER = "optimizer"
BUCKET = "bucket"
STEP = "step"
WARNING = "warning"
LOST = "lost"
END = "end"
NEXT_FROM = "next_from_ns", "next_from_microbatch"
CHUNK = "chunk"
STRINGS = "strings"
CHUNK_END = "chunk_end"

PACKED = {1: "int8", 4: "int32", 8: "int64"}
"""Keys, by width in bytes, of an object that stands for a column of integers: base64 of their little-endian words.

The least number of a width stands for null."""

CHUNK_TABLES = (
    *("frames", "stacks", "events", "phases", "scopes", "owners", "saved"),
    *("keepers", "replica_forwards", "reducer_timings", "own_work", "annotations"),
)
"""Tables that a chunk may hold, by their name in `memtrace.schema.tables`."""


def part_name(*, rank: int | None, host: str, pid: int, suffix: str) -> str:
    """Return the name that all files of one recorded process start with.

    >>> part_name(rank=3, host="node-1", pid=42, suffix="9f3a")
    'rank00003-node-1-42-9f3a'
    >>> part_name(rank=None, host="laptop", pid=7, suffix="00ff")
    'process-laptop-7-00ff'
    """
    start = "process" if rank is None else f"rank{rank:05d}"
    safe_host = "".join(char if char.isalnum() or char in "-_" else "_" for char in host)[:40] or "host"
    return f"{start}-{safe_host}-{pid}-{suffix}"


def chunk_name(name: str, number: int) -> str:
    """Return the name, without suffix, of the chunk with this number.

    >>> chunk_name("process-laptop-7-00ff", 12)
    'process-laptop-7-00ff.chunk-000012'
    """
    return f"{name}{CHUNK_INFIX}{number:06d}"
