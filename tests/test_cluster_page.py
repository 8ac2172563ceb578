"""The worked example of docs/cluster.md, typed into a shell: every command prints what the page says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs/cluster.md"
PROGRAMS = {"memtrace": "memtrace", "dask": "dask", "python": ""}
NEXT = "=== the next command ==="


def commands() -> list[tuple[str, str]]:
    """Return each command of the page with what it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found = [part.partition("\n") for block in blocks for part in block.split("$ ")[1:]]
    return [(command, output) for command, _, output in found]


@contextmanager
def shell(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a shell in which the programs of the page are ours; all that it started ends with it."""
    programs = folder / "bin"
    programs.mkdir()
    for name, module in PROGRAMS.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {f"-m {module}" if module else ""} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    bash = subprocess.Popen(
        ["bash"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield bash
    finally:
        os.killpg(bash.pid, signal.SIGKILL)
        bash.communicate()


@pytest.mark.skipif(shutil.which("bash") is None, reason="the page is for bash")
def test_the_worked_example_prints_what_the_page_says(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    assert len(commands()) == 6
    with shell(tmp_path) as bash:
        assert bash.stdin is not None
        assert bash.stdout is not None
        for command, expected in commands():
            bash.stdin.write(f"{command.replace('8786', port)}\necho '{NEXT}'\n")
            bash.stdin.flush()
            printed = ""
            while (line := bash.stdout.readline()) != f"{NEXT}\n":
                assert line, f"the shell ended in: {command}"
                printed += line
            assert printed == expected, command
