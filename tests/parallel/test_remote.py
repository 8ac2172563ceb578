"""Traces at URLs, read through fsspec."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from memtrace.cli import group
from memtrace.parallel.run import report_of
from memtrace.parallel.sources import find_sources
from memtrace.report.json.report import report_json
from tests.builders import parts
from tests.builders import snapshot as build_snapshot
from tests.parallel.conftest import NUM_RANKS, damage

fsspec = pytest.importorskip("fsspec")

InTurn = Callable[[Path], bytes]


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of an empty folder in memory."""
    memory = fsspec.filesystem("memory")
    yield "memory://bucket/run"
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def upload(folder: Path, url: str) -> None:
    """Copy a folder with all in it."""
    memory = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe(f"{url.removeprefix('memory:/')}/{path.relative_to(folder)}", path.read_bytes())


def report(*args: str | Path) -> Result:
    return CliRunner().invoke(group, ["report", *map(str, args)])


def test_a_run_folder_at_a_url_is_read_as_one_here(bucket: str, own_ranks: Path, in_turn: InTurn) -> None:
    damage(own_ranks, 4)
    (own_ranks / "notes.txt").write_text("batch size 8")
    (own_ranks / ".hidden.json").write_text("{")
    upload(own_ranks, bucket)
    # What differs is what the run is called, in messages and in the commands to type next.
    here, there = (json.loads(text) for text in (in_turn(own_ranks), report_json(report_of([bucket]))))
    assert [one["message"].replace(bucket, str(own_ranks)) for one in there.pop("warnings")] == [
        one["message"] for one in here.pop("warnings")
    ]
    assert there.pop("next_commands") == [f"memtrace report {bucket} --html report.html"]
    del here["next_commands"]
    assert there["card"].pop("next_command") == f"memtrace report {bucket} --html report.html"
    del here["card"]["next_command"]
    assert there == here
    assert len(there["ranks"]) == NUM_RANKS - 1


def test_a_url_beside_a_path(bucket: str, ranks: Path) -> None:
    upload(ranks, bucket)
    result = report(ranks / "rank-00002.json.gz", f"{bucket}/rank-00001.json.gz", "--json")
    assert result.exit_code == 0, result.output
    assert [one["rank"] for one in json.loads(result.stdout)["ranks"]] == [1, 2]


def test_a_snapshot_at_a_url(bucket: str, tmp_path: Path) -> None:
    built = build_snapshot().alloc(1 << 20, 1000)
    built.write(tmp_path / "snapshot.pickle")
    upload(tmp_path, bucket)
    (rank,) = report_of([f"{bucket}/snapshot.pickle"]).ranks
    assert rank.peak.requested_bytes == 1000


@pytest.mark.parametrize("of_what", ["", "/rank0.json.parts"])
def test_parts_that_nobody_assembled(bucket: str, tmp_path: Path, of_what: str) -> None:
    parts(tmp_path / "rank0.json.parts").header(rank=0, pid=7).chunk([("alloc", 4096, 512)])
    upload(tmp_path, bucket)
    (rank,) = report_of([bucket + of_what]).ranks
    assert (rank.peak.requested_bytes, rank.complete) == (512, False)


def test_only_the_first_bytes_of_what_is_no_trace_are_read(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of hundreds of GiB may lie beside the traces."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/run/checkpoint.pt", b"PK\x03\x04" + bytes(1 << 20))
    opened = []

    class Counted:
        def __init__(self, file: object) -> None:
            self.file, self.num_bytes = file, 0
            opened.append(self)

        def __enter__(self) -> Counted:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def seek(self, place: int) -> int:
            return self.file.seek(place)  # type: ignore[attr-defined,no-any-return]

        def read(self, count: int = -1) -> bytes:
            content: bytes = self.file.read(count)  # type: ignore[attr-defined]
            self.num_bytes += len(content)
            return content

    plain = type(memory).open
    monkeypatch.setattr(type(memory), "open", lambda *args, **options: Counted(plain(*args, **options)))
    result = report(bucket)
    assert "no trace in this folder" in result.output
    assert [one.num_bytes for one in opened] == [4096]


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("memory://bucket/nothing", "there is no such file or folder"),
        ("carrier-pigeon://bucket/run", "Protocol not known: carrier-pigeon"),
        ("memory://bucket/run/empty.json", "the file is empty"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(bucket: str, url: str, what: str) -> None:
    fsspec.filesystem("memory").pipe("/bucket/run/empty.json", b"")
    result = report(url)
    assert result.exit_code == 1
    assert result.output.startswith(f"error: {url}: {what}"), result.output


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    result = report("s3://bucket/run")
    assert result.exit_code == 1
    assert "s3://bucket/run" in result.output
    assert "pip install 'memtrace[cluster]'" in result.output


def test_without_the_package_of_a_scheme_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    result = report("s3://bucket/run")
    assert result.exit_code == 1
    assert "s3fs" in result.output


def test_sizes_are_known_before_anything_is_read(bucket: str, ranks: Path) -> None:
    upload(ranks, bucket)
    sizes = [source.size_bytes for source in find_sources([bucket])]
    assert (
        sizes
        == [path.stat().st_size for path in sorted(ranks.iterdir())]
        == [source.size_bytes for source in find_sources([ranks])]
    )
