"""What is said of a program that fails under changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from memtrace.launch.fixing import last_line


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("Traceback\nKeyError: 'G'\n", "KeyError: 'G'"),
        # An exception of many lines is named by its first.
        ("x\n_pickle.UnpicklingError: Weights only\n\t(1) do this\nSee the documentation.\n", "Weights only"),
        ("ValueError: one\nRuntimeError: two\nbye\n", "RuntimeError: two"),
        ("killed\n\n", "killed"),
        ("", "it printed nothing"),
    ],
)
def test_the_last_exception_is_what_is_said(tmp_path: Path, printed: str, said: str) -> None:
    log = tmp_path / "log.txt"
    log.write_text(printed)
    assert said in last_line(log)
    assert "\n" not in last_line(log)
