"""How far inference is from the truth: recordings lose all that the hooks knew, and what is inferred is compared.

    python benchmarks/blind.py [--recordings FOLDER] [--only NAME] [--device cuda] [--no-write]

Every program is recorded with hooks (kept in FOLDER, if one is given, and not recorded again). Owners, saved tensors,
steps, phases and scopes are then removed, and what inference makes of the rest is compared with what the hooks said,
allocation by allocation. The targets are set for the first view; the others show less, and leave more unknown. The
confusion matrix and the figures are written to `benchmarks/results/blind-<date>.md`. CUDA needs two GPUs, or the
stand-ins for two (`python -m memtrace.driverless.start --devices 2 -- …`). Exit status 1 says that a target was missed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
sys.path.insert(0, str(ROOT))

from benchmarks.blindfold.compare import Comparison  # noqa: E402
from benchmarks.blindfold.programs import programs, record  # noqa: E402
from benchmarks.blindfold.views import VIEWS, View, views_of  # noqa: E402
from benchmarks.matrix.runs import WHERE, kind_of_device  # noqa: E402
from memtrace.analysis.attribution.attribute import CATEGORIES  # noqa: E402
from memtrace.store.reading.read import read_trace  # noqa: E402

MAX_MEDIAN_WRONG = 0.03
"""Bytes in a wrong category, as a share of the peak: median over the recordings."""
MAX_WRONG = 0.10
"""The same, at worst."""

Found = dict[str, dict[str, Comparison]]
"""Comparisons by name of the view, then by name of the recording."""


def find(folder: Path, only: str, device: str) -> Found:
    """Record what is missing in a folder, and return how inference does on every recording and view."""
    views = views_of(device)
    found: Found = {view.name: {} for view in views}
    for program in programs():
        if only not in program.name:
            continue
        ranks = read_trace(record(program, folder, device)).ranks
        for number, rank in enumerate(ranks):
            name = program.name if len(ranks) == 1 else f"{program.name} rank {rank.rank}"
            for view in views:
                found[view.name][name] = view.compare(rank, device if device == "cpu" else f"{device}:{number}")
            print(name, *(_pct(found[view.name][name].wrong_share) for view in views), flush=True)
    return found


def meets_targets(comparisons: Sequence[Comparison]) -> bool:
    """Return whether median and worst share of wrong bytes are as wanted."""
    shares = [one.wrong_share for one in comparisons]
    return statistics.median(shares) <= MAX_MEDIAN_WRONG and max(shares) <= MAX_WRONG


def report(found: Found, device: str) -> str:
    """Return the page of results."""
    views = views_of(device)
    return "\n".join([*_head(found, device), *(line for view in views for line in _view(view, found[view.name]))])


def _head(found: Found, device: str) -> Iterator[str]:
    first = list(found[VIEWS[0].name].values())
    yield f"# Blind test of inference{WHERE[kind_of_device(device)]}, {datetime.date.today().isoformat()}"
    yield ""
    yield f"{len(first)} recordings, stripped of owners, saved tensors, steps, phases, scopes and windows. Shares of"
    yield "the peak. *Wrong*: a category other than the hooks'. *Unknown*: none, where the hooks have one."
    yield f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores."
    yield ""
    yield "| view | wrong, median | worst | unknown, median | worst | wrong bytes × lifetime, median | worst |"
    yield "|---|---|---|---|---|---|---|"
    for view in views_of(device):
        figures = list(found[view.name].values())
        columns = (
            [one.wrong_share for one in figures],
            [one.unknown_share for one in figures],
            [one.wrong_share_of_byte_moments for one in figures],
        )
        cells = (f"{_pct(statistics.median(one))} | {_pct(max(one))}" for one in columns)
        yield f"| {view.name} | {' | '.join(cells)} |"
    met = "met" if meets_targets(first) else "MISSED"
    yield ""
    wanted = f"wrong ≤ {_pct(MAX_MEDIAN_WRONG)} in the median and ≤ {_pct(MAX_WRONG)} at worst"
    yield f"Targets for the first view: {wanted}: {met}."


def _view(view: View, comparisons: dict[str, Comparison]) -> Iterator[str]:
    matrix = np.mean([one.peak / max(int(one.peak.sum()), 1) for one in comparisons.values()], axis=0)
    used = [at for at in range(len(CATEGORIES)) if matrix[at].any() or matrix[:, at].any()]
    yield ""
    yield f"## {view.name[0].upper()}{view.name[1:]}"
    yield ""
    yield f"{view.meaning[0].upper()}{view.meaning[1:]}."
    yield "Rows: what the hooks say; columns: what is inferred. Mean shares of the peak."
    yield ""
    yield f"| | {' | '.join(CATEGORIES[at].value for at in used)} |"
    yield f"|---|{'---|' * len(used)}"
    for row in used:
        cells = (_pct(matrix[row, column]) if matrix[row, column] else "–" for column in used)
        yield f"| **{CATEGORIES[row].value}** | {' | '.join(cells)} |"
    worst = sorted(comparisons.items(), key=lambda item: (-item[1].wrong_share, -item[1].unknown_share))[:_NUM_WORST]
    yield ""
    yield "| worst recordings | wrong | unknown | wrong bytes × lifetime |"
    yield "|---|---|---|---|"
    for name, one in worst:
        shares = (one.wrong_share, one.unknown_share, one.wrong_share_of_byte_moments)
        yield f"| {name} | {' | '.join(map(_pct, shares))} |"


_NUM_WORST = 8


def _pct(share: float) -> str:
    return f"{100 * share:.2f} %"


def main(arguments: Sequence[str]) -> int:
    """Record, compare, print the page and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, help="folder of recordings to use and to add to")
    parser.add_argument(
        "--only", default="", metavar="NAME", help="programs whose name contains this; implies --no-write"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.recordings or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = find(folder, options.only, options.device)
    if not found[VIEWS[0].name]:
        parser.error(f"no program's name contains {options.only!r}")
    page = report(found, options.device)
    print(page)
    if not options.no_write and not options.only:
        RESULTS.mkdir(exist_ok=True)
        kind = kind_of_device(options.device)
        name = "-".join(["blind", *([kind] if kind != "cpu" else []), datetime.date.today().isoformat()])
        path = RESULTS / f"{name}.md"
        path.write_text(page + "\n", encoding="utf-8")
    return 0 if meets_targets(list(found[VIEWS[0].name].values())) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
