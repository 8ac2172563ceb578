"""Files that are not what they should be: each is refused with one sentence, and nothing in them is executed."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memtrace.errors import TraceReadError, TraceVersionError
from memtrace.schema.version import TRACE_VERSION
from memtrace.store import files
from memtrace.store.reading.read import read_trace
from memtrace.store.writing.trace import trace_bytes
from tests.builders import rank_trace, snapshot, trace_of

FRAMES = [("train.py", 3, "main")]


def good_snapshot() -> dict[str, Any]:
    return snapshot().alloc(0x1000, 700, frames=FRAMES).alloc(0x2000, 64).free(0x1000).build()


def good_document() -> dict[str, Any]:
    rank = rank_trace(
        frames=[{"file": "a.py", "line": 1, "function": "f"}],
        stacks=[{"frame": 0}],
        events=[{"action": "alloc", "address": 1, "size_bytes": 8, "stack": 0}],
    )
    document: dict[str, Any] = json.loads(trace_bytes(trace_of(rank)))
    return document


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "input"
    path.write_bytes(content)
    return path


def refusal(path: Path) -> TraceReadError:
    with pytest.raises(TraceReadError) as caught:
        read_trace(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


CONTENTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "file-empty"),
    "blanks": (b"  \n\n ", "wrong-kind"),
    "words": (b"hello, world\n", "wrong-kind"),
    "binary": (bytes(range(256)), "wrong-kind"),
    "zip archive": (b"PK\x03\x04" + b"\0" * 100, "wrong-kind"),
    "json of something else": (b'{"loss": [1, 2, 3]}', "wrong-kind"),
    "a report instead of a trace": (b'{"format": "memtrace-report", "version": 1}', "wrong-kind"),
    "list of numbers": (b"[1, 2, 3]", "wrong-kind"),
    "one part": (b'{"k":"header","format":"memtrace-part","version":1}\n{"k":"end"}\n', "wrong-kind"),
    "cut json": (b'{"format": "memtrace-trace", "version": 1, "str', "file-truncated"),
    "cut gzip": (gzip.compress(json.dumps(good_document()).encode())[:-9], "file-truncated"),
    "damaged gzip": (b"\x1f\x8b\x08\0garbage garbage", "file-damaged"),
    "gzip twice": (gzip.compress(gzip.compress(b"{}" * 100)), "wrong-kind"),
    "NaN": (b'{"format": "memtrace-trace", "version": NaN}', "file-damaged"),
    "deeply nested": (b"[" * 100_000 + b"]" * 100_000, "file-damaged"),
    "deeply nested profile": (b'{"traceEvents": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "file-damaged"),
    "pickle of a number": (pickle.dumps(3), "wrong-kind"),
    "pickle of a dict of something": (pickle.dumps({"loss": 1}), "wrong-kind"),
    "cut pickle": (pickle.dumps(good_snapshot())[:-20], "file-truncated"),
    "cut pickle of protocol 0": (pickle.dumps(good_snapshot(), protocol=0)[:200], "file-truncated"),
    "only the pickle's first byte": (b"\x80", "file-truncated"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_file_of_no_use_is_refused_with_one_sentence(tmp_path: Path, name: str) -> None:
    content, slug = CONTENTS[name]
    assert refusal(written(tmp_path, content)).slug == slug


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zstd", bytes.fromhex("28b52ffd2441090000") + b"{}" * 4),
        ("xz", lzma.compress(b"{}" * 100)),
        ("bzip2", bz2.compress(b"{}" * 100)),
    ],
)
def test_another_compression_is_called_by_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    error = refusal(written(tmp_path, content))
    assert error.message.endswith(f"{name}-compressed")
    assert "decompress" in str(error.hint)


def test_missing_file_is_named_and_an_interrupted_recording_beside_it_is_pointed_at(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    assert refusal(path).hint is None
    (tmp_path / "trace.json.parts").mkdir()
    assert "trace.json.parts" in str(refusal(path).hint)


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, b"{}")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "ermission" in refusal(path).message


def test_newer_version_is_refused_and_both_numbers_are_named(tmp_path: Path) -> None:
    document = {**good_document(), "version": TRACE_VERSION + 6}
    with pytest.raises(TraceVersionError) as caught:
        read_trace(written(tmp_path, json.dumps(document).encode()))
    assert str(TRACE_VERSION) in caught.value.message
    assert str(TRACE_VERSION + 6) in caught.value.message


@pytest.mark.parametrize("version", [None, "1", 0, -1, 1.0, True])
def test_version_that_is_none_is_refused(tmp_path: Path, version: object) -> None:
    refusal(written(tmp_path, json.dumps({**good_document(), "version": version}).encode()))


def test_gzip_bomb_is_refused_before_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_EXPANSION_FLOOR_BYTES", 1 << 20)
    packed = zlib.compressobj(9, wbits=31)
    bomb = packed.compress(b'{"traceEvents":[' + b"0," * (1 << 24)) + packed.flush()
    error = refusal(written(tmp_path, bomb))
    assert error.slug == "file-too-large"


def test_gzip_bomb_of_zeros_is_refused_by_its_first_bytes(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, gzip.compress(bytes(1 << 24)))).slug == "wrong-kind"


def test_file_that_would_not_fit_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_memory_limit_bytes", lambda: 100)
    assert refusal(written(tmp_path, json.dumps(good_document()).encode())).slug == "file-too-large"


def test_compressed_snapshot_and_joined_gzip_members_are_read(tmp_path: Path) -> None:
    content = pickle.dumps(good_snapshot())
    packed = gzip.compress(content[:50]) + gzip.compress(content[50:]) + b"\0" * 8
    assert len(read_trace(written(tmp_path, packed)).ranks[0].table("events")) == 4


Change = Callable[[dict[str, Any]], object]


def table(document: dict[str, Any], name: str) -> dict[str, Any]:
    columns: dict[str, Any] = document["ranks"][0]["tables"][name]
    return columns


TRACE_CHANGES: dict[str, Change] = {
    "no header": lambda one: one.pop("header"),
    "no strings": lambda one: one.pop("strings"),
    "strings of numbers": lambda one: one.update(strings=[1, 2]),
    "no ranks": lambda one: one.pop("ranks"),
    "a rank that is a list": lambda one: one.update(ranks=[[]]),
    "a rank without source": lambda one: one["ranks"][0].update(header={}),
    "a rank whose number is a text": lambda one: one["ranks"][0]["header"].update(rank="0"),
    "a table that is a list": lambda one: one["ranks"][0]["tables"].update(events=[]),
    "a missing column": lambda one: table(one, "events").pop("size_bytes"),
    "a column that is a number": lambda one: table(one, "events").update(size_bytes=3),
    "columns of unequal length": lambda one: table(one, "events").update(size_bytes=[1, 2]),
    "a text as size": lambda one: table(one, "events").update(size_bytes=["8"]),
    "a float as size": lambda one: table(one, "events").update(size_bytes=[8.0]),
    "null as size": lambda one: table(one, "events").update(size_bytes=[None]),
    "a huge int as size": lambda one: table(one, "events").update(size_bytes=[10**30]),
    "a size beyond 64 bits": lambda one: table(one, "events").update(size_bytes=[2**64 - 1]),
    "a negative size": lambda one: table(one, "events").update(size_bytes=[-1]),
    "a number as flag": lambda one: table(one, "windows").update(continues=[1]),
    "a string id out of range": lambda one: table(one, "events").update(action=[99]),
    "a negative string id": lambda one: table(one, "events").update(action=[-1]),
    "a stack out of range": lambda one: table(one, "events").update(stack=[7]),
    "a frame out of range": lambda one: table(one, "stacks").update(frame=[7]),
    "a stack that calls itself": lambda one: table(one, "stacks").update(parent=[0]),
    "a window beyond the events": lambda one: table(one, "windows").update(num_events=[2]),
    "a window of less than nothing": lambda one: table(one, "windows").update(num_events=[-1]),
}


@pytest.mark.parametrize("name", TRACE_CHANGES)
def test_damaged_trace_is_refused(tmp_path: Path, name: str) -> None:
    document = good_document()
    read_trace(written(tmp_path, json.dumps(document).encode()))
    TRACE_CHANGES[name](document)
    refusal(written(tmp_path, json.dumps(document).encode()))


def test_unknown_tables_columns_and_fields_are_ignored_and_counted(tmp_path: Path) -> None:
    document = good_document()
    document["future"] = 1
    document["ranks"][0]["tables"]["futures"] = {"a": [1]}
    table(document, "events")["mood"] = [3]
    rank = read_trace(written(tmp_path, json.dumps(document).encode())).ranks[0]
    assert [(one.slug, one.count) for one in rank.warnings] == [("unknown-fields", 2)]
    assert len(rank.table("events")) == 1


def event(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = one["device_traces"][0][0]
    return found


def block(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = one["segments"][0]["blocks"][0]
    return found


SNAPSHOT_CHANGES: dict[str, Change] = {
    "segments that are a dict": lambda one: one.update(segments={}),
    "a segment that is a number": lambda one: one.update(segments=[1]),
    "no blocks": lambda one: one["segments"][0].pop("blocks"),
    "no address": lambda one: one["segments"][0].pop("address"),
    "a block without a size": lambda one: block(one).pop("size"),
    "a block of a negative size": lambda one: block(one).update(size=-5),
    "a block whose state is a number": lambda one: block(one).update(state=4),
    "a block with a float": lambda one: block(one).update(requested_size=1.5),
    "a device that is a text": lambda one: one["segments"][0].update(device="cuda"),
    "a device of a million": lambda one: one["segments"][0].update(device=10**6),
    "a pool that is a text": lambda one: one["segments"][0].update(segment_pool_id="0,0"),
    "traces that are a dict": lambda one: one.update(device_traces={"a": 1}),
    "a trace that is a dict": lambda one: one.update(device_traces=[{"a": 1}]),
    "an event that is a text": lambda one: one["device_traces"][0].append("alloc"),
    "an event without an action": lambda one: event(one).pop("action"),
    "an action that is a list": lambda one: event(one).update(action=[]),
    "an action that is a number": lambda one: event(one).update(action=7),
    "an event without a size": lambda one: event(one).pop("size"),
    "a negative size": lambda one: event(one).update(size=-512),
    "a size that is a text": lambda one: event(one).update(size="512"),
    "a size that is NaN": lambda one: event(one).update(size=float("nan")),
    "a huge address": lambda one: event(one).update(addr=10**40),
    "a time beyond 64 bits of ns": lambda one: event(one).update(time_us=2**62),
    "frames that are a text": lambda one: event(one).update(frames="main"),
    "a frame that is a text": lambda one: event(one).update(frames=["main"]),
    "a frame whose line is a text": lambda one: event(one).update(frames=[{"line": "3"}]),
    "annotations that are a dict": lambda one: one.update(external_annotations={"a": 1}),
    "an annotation that is a text": lambda one: one.update(external_annotations=["x"]),
}


@pytest.mark.parametrize("name", SNAPSHOT_CHANGES)
def test_damaged_snapshot_is_refused(tmp_path: Path, name: str) -> None:
    data = good_snapshot()
    SNAPSHOT_CHANGES[name](data)
    refusal(written(tmp_path, pickle.dumps(data)))


PROFILE_CHANGES: dict[str, Change] = {
    "a time that is a text": lambda one: one.update(ts="5"),
    "a time beyond 64 bits of ns": lambda one: one.update(ts=10**17),
    "bytes that are a text": lambda one: one["args"].update(Bytes="5"),
    "no bytes": lambda one: one["args"].pop("Bytes"),
    "a huge number of bytes": lambda one: one["args"].update(Bytes=10**30),
    "a float address": lambda one: one["args"].update(Addr=1.5),
    "a device that is a text": lambda one: one["args"].update({"Device Type": "cuda"}),
}


@pytest.mark.parametrize("name", PROFILE_CHANGES)
def test_damaged_memory_event_of_a_profile_is_refused(tmp_path: Path, name: str) -> None:
    args = {"Bytes": 512, "Device Type": 1, "Device Id": 0, "Addr": 64, "Total Allocated": 512}
    one: dict[str, Any] = {"ph": "i", "name": "[memory]", "ts": 5.5, "args": args}
    read_trace(written(tmp_path, json.dumps({"traceEvents": [one]}).encode()))
    PROFILE_CHANGES[name](one)
    refusal(written(tmp_path, json.dumps({"traceEvents": [one]}).encode()))
