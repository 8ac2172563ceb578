"""The two engines of `memtrace predict` against each other, operator by operator, forward and backward.

`programs/many_operators.py` runs once for each engine and setting (types of inputs and layers, autocast): of each line
of `programs/operators.txt` the peak of requested bytes. Torch's own CUDA code is the truth here. The meta engine ends a
program at what it refuses; it goes on with the next operator. Needs a Python whose torch is built for CUDA:

    python benchmarks/operators.py --python .venv-driverless/bin/python [--gpu a100-40gb] [--settings float32,…]
        [--only bilinear,stft] [--output FILE]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from memtrace.schema.predicted import DRIVERLESS, META  # noqa: E402

PROGRAMS = ROOT / "benchmarks" / "programs"
SETTINGS = (
    "float32,bfloat16,float16,autocast-bfloat16,autocast-float16,autocast-bfloat16-within,autocast-float16-within"
)
_LEAST, _SHARE = 8192, 500
"""Peaks are equal that differ by no more bytes than these, or by no more than this part."""


def names_of_all() -> list[str]:
    """Return the names of all operators, in order."""
    lines = (PROGRAMS / "operators.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition(": ")[0] for line in lines if ": " in line and not line.startswith("#")]


def peaks(engine: str, python: str, gpu: str, setting: str, names: Sequence[str]) -> dict[str, str]:
    """Return by name the bytes at the peak, or why there are none."""
    found: dict[str, str] = {}
    left = list(names)
    with tempfile.TemporaryDirectory() as folder:
        while left:
            said = _predicted(engine, python, gpu, [setting, *left], Path(folder) / "predicted.json")
            rows = [line.split(" ", 2) for line in said.stdout.splitlines() if line.startswith("peak ")]
            found.update({name: what for _, name, what in rows})
            left = [name for name in left if name not in found]
            if left:
                found[left.pop(0)] = "refused: " + " ".join(said.stderr.split())[-300:]
    return found


def _predicted(
    engine: str, python: str, gpu: str, arguments: Sequence[str], trace: Path
) -> subprocess.CompletedProcess[str]:
    program = [python, "-W", "ignore", str(PROGRAMS / "many_operators.py"), *arguments]
    options = ["--engine", engine, "--gpu", gpu, "--steps", "100000", "--force", "-o", str(trace)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "memtrace", "predict", *options, "--", *program]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def is_equal(true: str, ours: str) -> bool:
    """Return whether both peaks are as good as equal, or both failed."""
    if not true.isdigit() or not ours.isdigit():
        return not true.isdigit() and not ours.isdigit()
    return abs(int(ours) - int(true)) <= max(_LEAST, int(true) // _SHARE)


def lines_of(setting: str, true: dict[str, str], ours: dict[str, str]) -> Iterator[str]:
    """Yield a row for each operator that differs."""
    for name, found in true.items():
        other = ours.get(name, "it was not reached")
        if is_equal(found, other):
            continue
        both = found.isdigit() and other.isdigit()
        off = f"{100 * (int(other) - int(found)) / max(int(found), 1):+.1f} %" if both else ""
        shown = (f"{int(one):,}" if one.isdigit() else one.replace("|", "/")[:160] for one in (found, other))
        yield f"| {setting} | {name} | {' | '.join(shown)} | {off} |"


def main() -> None:
    """Run both engines in each setting and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=str(ROOT / ".venv-driverless" / "bin" / "python"))
    parser.add_argument("--meta-python", default=sys.executable, help="any Python with torch, for the meta engine")
    parser.add_argument("--gpu", default="a100-40gb")
    parser.add_argument("--settings", default=SETTINGS)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    chosen = [name for name in asked.only.split(",") if name]
    names = [name for name in names_of_all() if not chosen or name in chosen]
    lines = ["| setting | operator | driverless, bytes | meta, bytes | off by |", "|---|---|--:|--:|--:|"]
    counts = ["| setting | equal | of |", "|---|--:|--:|"]
    for setting in asked.settings.split(","):
        true = peaks(DRIVERLESS, asked.python, asked.gpu, setting, names)
        ours = peaks(META, asked.meta_python, asked.gpu, setting, names)
        lines += lines_of(setting, true, ours)
        equal = sum(is_equal(found, ours.get(name, "")) for name, found in true.items())
        counts.append(f"| {setting} | {equal} | {len(true)} |")
        print(counts[-1], flush=True)
    said = "\n".join([*counts, "", *lines])
    print(said)
    if asked.output is not None:
        asked.output.write_text(said + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
