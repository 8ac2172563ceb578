"""A descriptor is to be had where the program has taken all, and its limit is what it was afterwards."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from memtrace.hooks.parts.room import Room

TAKE_ALL = """
import os, resource, sys
from memtrace.hooks.parts.room import Room

soft, hard = (int(word) for word in sys.argv[1:])
room = Room()
room.reserve()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
with room, room:
    os.close(os.open(os.devnull, os.O_RDONLY))
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard))
"""


@pytest.mark.parametrize(("soft", "hard"), [(64, 128), (300, 300)], ids=["beyond-the-limit", "in-reserve"])
def test_there_is_room_where_the_program_has_taken_all(soft: int, hard: int, repo_root: Path) -> None:
    if hard == soft and not hasattr(os, "memfd_create"):
        pytest.skip("this system has no files without a name")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    command = [sys.executable, "-c", TAKE_ALL, str(soft), str(hard)]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, preexec_fn=limit, timeout=60)
    assert done.stdout == "True\n", done.stderr


def test_what_the_program_put_in_the_place_of_the_reserve_is_not_closed(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    room = Room()
    room.reserve()
    (own,) = [int(name) for name in os.listdir("/proc/self/fd") if name not in before and name.isdigit()][:1]
    data = os.open(tmp_path / "data", os.O_CREAT | os.O_RDWR)
    os.dup2(data, own)
    room.let_go()
    assert os.fstat(own).st_ino == os.fstat(data).st_ino
    for number in (own, data):
        os.close(number)
