"""The worked example of docs/live.md: its program is recorded, hangs, and is seen hanging as the page says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT, RunMemtrace

PAGE = ROOT / "docs/live.md"


def blocks(kind: str) -> list[str]:
    """Return the blocks of code of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def without_what_differs(frame: str) -> str:
    """Return a frame without process id and times, and with the spaces that follow from them made equal."""
    frame = re.sub(r"process \d+", "process", frame)
    frame = re.sub(r"\b[\d.]+ (?:min \d+ )?(?:s|ms|µs)\b", "TIME", frame)
    return re.sub(r"[ ─]+", " ", frame).strip()


def test_the_worked_example_shows_what_the_page_says(tmp_path: Path, run_memtrace: RunMemtrace) -> None:
    (tmp_path / "train.py").write_text(blocks("python")[0])
    (_, _), (command, expected) = (block.removeprefix("$ ").split("\n", 1) for block in blocks("console"))
    recording = subprocess.Popen(
        [sys.executable, "-m", "memtrace", "record", "-o", "trace.json", "--", sys.executable, "train.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    frame = ""
    end = time.monotonic() + 90
    try:
        while "backward, " not in frame:
            assert time.monotonic() < end, frame
            time.sleep(0.5)
            frame = run_memtrace(*command.split()[1:], cwd=tmp_path).stdout
    finally:
        os.killpg(recording.pid, signal.SIGKILL)
        recording.wait()
    assert without_what_differs(frame) == without_what_differs(expected), frame
