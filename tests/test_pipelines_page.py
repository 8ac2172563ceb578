"""The worked example of docs/pipelines.md: its program is run, and each command prints what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

PAGE = ROOT / "docs/pipelines.md"
EXIT_CODES = {"--budget": 3, "--baseline": 3}


def blocks(kind: str) -> list[str]:
    """Return the blocks of code of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Return each command of the page with what it prints."""
    found = [part.partition("\n") for block in blocks("console") for part in block.split("$ ")[1:]]
    return [(command, output) for command, _, output in found]


def test_the_worked_example_prints_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(blocks("python")[0])
    programs = {"python": [sys.executable], "memtrace": [sys.executable, "-m", "memtrace"]}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    assert len(commands()) == 4
    for command, output in commands():
        program, *arguments = shlex.split(command)
        done = subprocess.run(
            [*programs[program], *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment
        )
        # Where the page has its program.
        assert done.stdout.replace(str(tmp_path), "/home/ada/project") == output, command
        assert done.returncode == next((code for option, code in EXIT_CODES.items() if option in arguments), 0)
