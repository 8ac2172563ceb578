"""Following a part while it grows: only what is new is read, and only whole lines count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from memtrace.store.parts.running import RunningPart

NAME = "rank00000-host-7-00ff"
HEADER = {"k": "header", "rank": 0, "pid": 7, "start_ns": 1}


def line(record: dict[str, Any]) -> bytes:
    """Return a record as the recording writes it."""
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def step(number: int) -> dict[str, Any]:
    """Return the record of a step of 5 ns."""
    return {"k": "step", "step": number, "start_ns": 10 * number, "end_ns": 10 * number + 5}


def test_what_comes_later_is_added_to_what_was_there(tmp_path: Path) -> None:
    main = tmp_path / f"{NAME}.jsonl"
    part = RunningPart(tmp_path, NAME)
    part.look()
    assert (part.header, part.written_ns) == ({}, None)
    whole = line(HEADER) + line(step(1)) + line({"k": "warning", "slug": "s", "message": "m", "count": 1})
    torn = line(step(2))
    main.write_bytes(whole + torn[:9])
    part.look()
    assert part.header["pid"] == 7
    assert [one["step"] for one in part.steps] == [1]
    assert list(part.warnings) == [("s", "m")]
    # Were the beginning read again, it would be found damaged.
    main.write_bytes(b"#" * len(whole) + torn + line({"k": "facts", "world_size": 4}) + b"not json\n")
    part.look()
    assert [one["step"] for one in part.steps] == [1, 2]
    assert part.header["world_size"] == 4
    assert not part.has_ended
    with main.open("ab") as file:
        file.write(line({"k": "end", "complete": True}))
    part.look()
    assert part.has_ended


def test_of_very_many_steps_the_last_are_kept(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.jsonl").write_bytes(line(HEADER) + b"".join(line(step(one)) for one in range(5000)))
    part = RunningPart(tmp_path, NAME)
    part.look()
    assert [one["step"] for one in part.steps] == list(range(4992, 5000))


def test_a_status_that_is_not_whole_leaves_the_one_before(tmp_path: Path) -> None:
    status = tmp_path / f"{NAME}.status.json"
    part = RunningPart(tmp_path, NAME)
    status.write_bytes(b'{"step":3}'.ljust(1023) + b"\n")
    part.look()
    for bad in (b'{"step":4', b"[]", b""):
        status.write_bytes(bad)
        part.look()
        assert part.status == {"step": 3}
    status.unlink()
    part.look()
    assert part.status == {"step": 3}
