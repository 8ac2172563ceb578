"""Writes docs/cookbook.md and its pictures: every program of samples/faults is recorded, faulty and repaired.

`python docs/cookbook.py [NAME …]` takes some ten seconds a program. The page has what memtrace says of the runs.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtrace.units import format_bytes

DOCS = Path(__file__).parent
FAULTS = DOCS.parent / "samples" / "faults"
IMAGES = DOCS / "images" / "cookbook"
INTRODUCTION = """# Cookbook: the causes that people meet most

Each of these is a program of some thirty lines in `samples/faults/`, with one fault that people reported in public
threads. The picture is the card that `memtrace report` prints of its recording on a CPU; below it stands what the
report finds, and what the peak becomes once the fault is gone (`--repaired`). All of it was made by running them:
`python docs/cookbook.py`.
"""

CAUSES = {
    "autocast_around_loop": ("autocast-copies",),
    "checkpoint_kept": ("second-copy",),
    "copies_of_folds": ("second-copy",),
    "create_graph": ("leak", "kept"),
    "ema_copy": ("second-copy",),
    "epoch_outputs": ("kept-for-steps", "leak", "kept"),
    "evaluation_outputs": ("evaluation-outputs",),
    "exception_kept": ("leak", "kept"),
    "frozen_base": ("unstepped-gradients",),
    "gradients_zeroed": ("gradients-through-forward",),
    "growing_cache": ("leak", "kept"),
    "growing_inputs": ("growing-batches",),
    "longest_batch": ("odd-batch",),
    "metric_states": ("leak", "kept"),
    "one_backward": ("one-backward",),
    "outputs_of_step_before": ("outputs-of-step-before",),
    "recomputation_lost": ("recomputation-off",),
    "reference_cycle": ("kept-for-steps", "leak", "kept"),
    "validation_graph": ("evaluation-graph", "kept"),
    "vocabulary_log_softmax": ("large-logits",),
}
"""What memtrace must find in each, among its first two findings, and may not find in the repaired program."""
STAYS = {"vocabulary_log_softmax"}
"""Where the repair makes it less, and what is left is still worth a word."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One fault as memtrace tells of it."""

    name: str
    summary: str
    finding: dict[str, Any] | None
    """The cause; `None` where it was not named."""
    is_false: bool
    """Whether the repaired program is told to have it too."""
    peak_bytes: int
    repaired_bytes: int


def recipe(name: str, folder: Path) -> Recipe:
    """Record a program with and without its fault, draw the card of the faulty run, and return what was found."""
    faulty, repaired = (_report(name, folder, *more) for more in ((), ("--repaired",)))
    IMAGES.mkdir(parents=True, exist_ok=True)
    _memtrace("report", folder / f"{name}.json", "--card", IMAGES / f"{name}.svg", "--force", "--redact")
    causes = CAUSES[name]
    return Recipe(
        name=name,
        summary=ast.get_docstring(ast.parse(_source(name))) or name,
        finding=next((one for one in faulty["findings"][:2] if one["slug"] in causes), None),
        is_false=name not in STAYS and any(one["slug"] in causes for one in repaired["findings"]),
        peak_bytes=_peak(faulty),
        repaired_bytes=_peak(repaired),
    )


def page(recipes: list[Recipe]) -> str:
    """Return the page."""
    contents = "\n".join(f"- [{one.summary}](#{one.name.replace('_', '-')})" for one in recipes)
    return "\n".join([INTRODUCTION, contents, *map(_section, recipes)]) + "\n"


def _section(one: Recipe) -> str:
    found = one.finding
    lines = ["", f"## {one.name.replace('_', ' ').capitalize()}", "", one.summary, ""]
    lines += [f"![The card of {one.name}.py](images/cookbook/{one.name}.svg)", ""]
    if found is not None:
        where = found.get("where") or {}
        at = f" at line {where['line']} of `{Path(where['file']).name}`" if where.get("line") else ""
        lines += [f"**Found:** {found['title']}{at} (`{found['slug']}`).", "", f"**Change:** {found['change']}", ""]
    lines += [
        f"Peak {format_bytes(one.peak_bytes)}; repaired, {format_bytes(one.repaired_bytes)}. "
        f"Try it: `memtrace record -o trace.json -- python samples/faults/{one.name}.py`",
    ]
    return "\n".join(lines)


def _report(name: str, folder: Path, *more: str) -> dict[str, Any]:
    trace = folder / f"{name}{''.join(more)}.json"
    _memtrace("record", "--quiet", "-o", trace, "--", sys.executable, FAULTS / f"{name}.py", *more)
    report: dict[str, Any] = json.loads(_memtrace("report", trace, "--json"))
    return report


def _memtrace(*args: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "memtrace", *map(str, args)], capture_output=True, text=True, check=True
    )
    return done.stdout


def _source(name: str) -> str:
    return (FAULTS / f"{name}.py").read_text(encoding="utf-8")


def _peak(report: dict[str, Any]) -> int:
    peak: int = report["card"]["peak_bytes"]
    return peak


def main() -> int:
    """Write the page of all programs, or only the pictures of those that are named; 1 where a cause is not named."""
    names = sys.argv[1:] or sorted(path.stem for path in FAULTS.glob("*.py"))
    with tempfile.TemporaryDirectory() as folder:
        recipes = [recipe(name, Path(folder)) for name in names]
    if not sys.argv[1:]:
        (DOCS / "cookbook.md").write_text(page(recipes), encoding="utf-8")
    for one in recipes:
        told = one.finding["slug"] if one.finding else "NOT NAMED"
        print(f"{one.name}: {told}{', and in the repaired program too' if one.is_false else ''}")
    return int(any(one.finding is None or one.is_false for one in recipes))


if __name__ == "__main__":
    raise SystemExit(main())
