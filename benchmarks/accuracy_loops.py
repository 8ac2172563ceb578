"""Loops of well-known programs against the account that each keeps of itself: a section of docs/accuracy.md.

`python benchmarks/accuracy_loops.py` records the loops of `tests/analysis/loops_of_strangers.py` and writes the section
anew; `benchmarks/accuracy.py` writes the rest of the page. Exit status 1 says that a figure was not that of a loop.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from memtrace.analysis.report import analyze  # noqa: E402
from memtrace.store.reading.read import read_trace  # noqa: E402
from tests.analysis.loop_accounts import record_loops, told  # noqa: E402
from tests.analysis.loops_of_strangers import LOOPS  # noqa: E402

DOCUMENT = ROOT / "docs" / "accuracy.md"
TITLE = "## Loops of other programs"
INTRODUCTION = """
The loops of well-known programs in a few lines each, written by `benchmarks/accuracy_loops.py`. Each loop counts for
itself what it holds at the end of every step (storages of parameters, gradients, buffers and optimizer states, by plain
torch), and says which phases the step went through and how many samples. *Differences* are steps in which memtrace says
anything else of phases, samples or micro-batches; *owned* is the largest difference in bytes of any category at the end
of any step. Buffers of a model are known from its first call on. Threads other than the first are followed in no
phase, so that what they make in theirs may be unattributed.

| loop | what is special | steps | differences | owned | unattributed at the peak |
|---|---|---:|---:|---:|---:|
""".strip()


def main() -> int:
    """Record the loops, and write the section."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record_loops(ROOT, folder)
        rows = [_row(folder, loop) for loop in LOOPS]
    lines = [TITLE, "", INTRODUCTION, *(row for row, _ in rows), ""]
    DOCUMENT.write_text("\n".join(_with_section(DOCUMENT.read_text(encoding="utf-8"), lines)), encoding="utf-8")
    bad = [loop for loop, (_, is_exact) in zip(LOOPS, rows, strict=True) if not is_exact]
    print(f"{len(rows)} loops, {len(bad)} not exact", *bad, sep="\n")
    return 1 if bad else 0


def _row(folder: Path, name: str) -> tuple[str, bool]:
    """Return a row of the table, and whether all of it is exact."""
    (rank,) = analyze(read_trace([folder / f"{name}.json"])).ranks
    found, expected = told(rank), json.loads((folder / f"{name}.ledger.json").read_text())
    differences = abs(len(found) - len(expected))
    owned = 0
    for ours, theirs in zip(found, expected, strict=False):
        differences += _without_owned(ours) != _without_owned(theirs)
        owned = max(owned, *(abs(ours["owned"].get(one, 0) - size) for one, size in theirs["owned"].items()))
    unknown = rank.peak.by_category["unknown"] / (rank.peak.requested_bytes or 1)
    what = (LOOPS[name].__doc__ or "").rstrip(".")
    row = f"| {name} | {what} | {len(expected)} | {differences} | {owned} | {unknown:.2%} |"
    return row, found == expected


def _without_owned(step: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in step.items() if name != "owned"}


def _with_section(text: str, section: list[str]) -> Iterator[str]:
    """Yield the lines of the page with this section in place of the one that it has, or before the long table."""
    is_old = False
    is_written = False
    for line in text.split("\n"):
        if line.startswith("## "):
            is_old = line == TITLE
            if not is_written and (is_old or line == "## Every configuration"):
                yield from section
                is_written = True
        if not is_old:
            yield line


if __name__ == "__main__":
    sys.exit(main())
