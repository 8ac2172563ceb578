"""Outputs: a file is replaced whole, a link stays, and what is no file is written through."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from memtrace.errors import OutputError
from memtrace.launch.output import check_free
from memtrace.whole_files import is_replaceable, write_whole


def text(content: bytes):
    def write(file: IO[bytes]) -> None:
        file.write(content)

    return write


def test_a_file_is_replaced_and_gets_the_rights_of_a_new_one(tmp_path: Path) -> None:
    path, other = tmp_path / "t.json", tmp_path / "other"
    path.write_bytes(b"old")
    inode = path.stat().st_ino
    write_whole(path, text(b"new"))
    other.touch()
    assert (path.read_bytes(), path.stat().st_mode) == (b"new", other.stat().st_mode)
    assert path.stat().st_ino != inode


def test_nothing_is_left_of_an_output_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(b"old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("t.json", b"old")]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_a_link(tmp_path: Path, is_there: bool) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to("target")
    if is_there:
        target.write_bytes(b"old")
    write_whole(link, text(b"new"))
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_pipe_is_written_through_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
    write_whole(path, text(b"through"))
    assert reader.communicate(timeout=20)[0] == b"through"
    assert stat.S_ISFIFO(path.lstat().st_mode)


@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_by_its_name(tmp_path: Path, into: str) -> None:
    source = (
        "import pathlib\nfrom memtrace.whole_files import write_whole\nprint('before', flush=True)\n"
        "write_whole(pathlib.Path('/dev/stdout'), lambda file: file.write(b'whole\\n'))\n"
    )
    command = [sys.executable, "-c", source]
    link = os.readlink("/dev/stdout")
    with (tmp_path / "out").open("wb") as file:
        ran = subprocess.run(command, stdout=subprocess.PIPE if into == "pipe" else file, check=True, timeout=20)
    got = ran.stdout if into == "pipe" else (tmp_path / "out").read_bytes()
    assert got == b"before\nwhole\n"
    assert os.readlink("/dev/stdout") == link


def test_a_recording_into_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), Path("/dev/stdout")):
        assert not is_replaceable(path)
        with pytest.raises(OutputError, match="is no regular file"):
            check_free(path, force=True)
