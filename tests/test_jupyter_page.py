"""The worked example of docs/jupyter.md: its cells are run in a real shell and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("IPython")

from memtrace.integrations.jupyter import _parser
from tests.integrations.test_jupyter import run_cells

PAGE = (ROOT / "docs/jupyter.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    """Return the blocks of code of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_worked_example_prints_what_the_page_says(tmp_path: Path) -> None:
    _, recorded, named, shown, _ = blocks("python")
    report, trace = blocks("text")
    results, printed = run_cells(tmp_path, recorded, named, shown)
    assert [one["error"] for one in results[:3]] == [None, None, None]
    assert printed[0].startswith(report.removesuffix("…\n"))
    assert printed[1] == f"Out[0]: {trace}"
    assert printed[2].startswith("Out[0]: <memtrace report, a page of ")


def test_every_option_is_on_the_page() -> None:
    options = {name for action in _parser()._actions for name in action.option_strings[:1]}
    assert options == set(re.findall(r"`(--?[a-z-]+)", PAGE.partition("## Options")[2].partition("\n- ")[0]))
