"""Notebooks: a real IPython shell records cells, and the page that a trace shows draws itself in a browser, offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memtrace.analysis.report import analyze
from memtrace.integrations import jupyter, notebook_page
from memtrace.reading import ReadTrace, read
from memtrace.store.writing.trace import write_trace
from tests.analysis.small_trace import event_rows, owner, rank_trace, step, trace, window
from tests.conftest import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest.importorskip("IPython")

CELLS = """
import json, sys, torch
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "memtrace")

def run(cell):
    print("CELL")
    result = shell.run_cell(cell)
    error = result.error_in_exec
    return {"error": type(error).__name__ if error else None, "text": str(error)}

results = [run(cell) for cell in json.loads(sys.argv[1])]
named = shell.user_ns.get("kept")
results.append(repr(named))
print("RESULTS", json.dumps(results))
"""

TRAIN = """model = torch.nn.Linear(64, 64, bias=False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    model(torch.ones(8, 64)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def run_cells(folder: Path, *cells: str) -> tuple[list[Any], list[str]]:
    """Run cells in a shell of its own; return what came of each, and what each printed."""
    done = subprocess.run(
        [sys.executable, "-c", CELLS, json.dumps(cells)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(folder / "ipython")},
    )
    assert done.returncode == 0, done.stderr
    printed, _, results = done.stdout.partition("RESULTS ")
    return json.loads(results), printed.split("CELL\n")[1:]


def test_cells_are_recorded_and_their_mistakes_are_theirs(tmp_path: Path) -> None:
    (tmp_path / "taken.html").write_text("mine")
    results, printed = run_cells(
        tmp_path,
        "import torch",
        f"%%memtrace kept -o cell.json --html page.html\n{TRAIN}len(list(model.parameters())) + 41",
        "%%memtrace\nmodel(torch.ones(2, 64)).sum().backward()\nraise KeyError('of the cell')",
        "%%memtrace --steps soon\nprint('not run')",
        "%%memtrace --html taken.html\nprint('not run')",
        "%%memtrace --nonsense\nprint('not run')",
        "%%memtrace 1x\nprint('not run')",
    )
    *cells, kept = results
    assert [one["error"] for one in cells] == [None, None, "KeyError", *["UsageError"] * 4]
    assert "taken.html exists" in cells[4]["text"]
    assert not any("not run\n" in text for text in printed)
    # The value of the last expression, then the report, with lines of the cell and the command for its file.
    assert printed[1].startswith("Out[0]: 42\nmemtrace  cell.json\n")
    assert "<ipython-input-" in printed[1]
    assert "jupyter.py" not in printed[1]
    assert "memtrace report cell.json" in printed[1]
    assert "Wrote page.html" in printed[1]
    # A cell that fails is reported on as well, then its own error; no file is kept, so no command is named.
    assert "memtrace  this cell" in printed[2]
    assert printed[2].index("At the peak") < printed[2].index("KeyError")
    assert "memtrace report" not in printed[2]
    assert kept.startswith("<memtrace trace cell.json: ")
    assert (tmp_path / "taken.html").read_text() == "mine"
    (rank,) = analyze(read(tmp_path / "cell.json")).ranks
    assert rank.peak.by_category["parameter"] == 64 * 64 * 4
    assert [one.step for one in rank.steps if one.end_ns is not None] == [1, 2]


def shown_trace(path: str = "built") -> ReadTrace:
    """Return a trace of one allocation that is a parameter."""
    built = trace(
        rank_trace(
            events=event_rows([("alloc", 0x10, 4096)]),
            windows=[window(0, 1)],
            steps=[step(1, 0, 50)],
            owners=[owner(20, 0x10, 4096, "parameter")],
        )
    )
    return ReadTrace(header=built.header, ranks=built.ranks, path=path)


def test_a_trace_says_what_it_is_in_one_line(tmp_path: Path) -> None:
    write_trace(shown_trace(), tmp_path / "trace.json")
    text = repr(read(tmp_path / "trace.json"))
    assert text == f"<memtrace trace {tmp_path / 'trace.json'}: 1 events, 1 steps; show() draws its report>"


def test_a_page_that_is_too_large_leaves_out_what_it_can_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shown_trace("run<b>.json").show()
    assert whole.remark is None
    monkeypatch.setattr(notebook_page, "MAX_PAGE_CHARS", len(whole.content) - 1)
    smaller = shown_trace("run<b>.json").show()
    assert len(smaller.content) < len(whole.content)
    assert "memtrace report run&lt;b&gt;.json --html report.html" in smaller._repr_html_().rpartition("</iframe>")[2]
    monkeypatch.setattr(notebook_page, "MAX_PAGE_CHARS", 1000)
    with pytest.raises(jupyter.MemtraceError, match="too large"):
        shown_trace().show()


@pytest.mark.browser
def test_the_page_draws_itself_in_its_frame_and_asks_for_nothing(browser: Browser, tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.html"
    html = shown_trace('"><script>alert(1)</script>').show()._repr_html_()
    notebook.write_text(f"<!doctype html><meta charset=utf-8><body>{html}</body>", encoding="utf-8")
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    page.goto(notebook.as_uri())
    frame = page.frames[1]
    for view in ("overview", "map", "timeline"):
        frame.wait_for_selector("html[data-ready=true]")
        frame.locator(f"nav.views [data-view={view}]").click()
    frame.wait_for_selector("html[data-ready=true]")
    assert "4.00 KiB" in frame.locator("body").inner_text()
    # It reaches nothing of the notebook around it.
    reach = "() => { try { return String(parent.document.title) } catch { return 'refused' } }"
    assert frame.evaluate(reach) == "refused"
    page.close()
    assert [one for one in complaints if "ReadPixels" not in one and "willReadFrequently" not in one] == []
