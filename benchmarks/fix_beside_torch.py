"""`memtrace fix` beside torch's `activation_memory_budget`: peak and slowdown of one model under both.

python benchmarks/fix_beside_torch.py [BUDGET …] [--results FILE]: the compiled program is recorded for each budget of
torch, and the plain one is made to fit in as many bytes. Both run on the CPU; time is that of the processor, against
the compiled program with its first budget, and against the plain program.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from memtrace.units import format_bytes

PROGRAM = Path(__file__).parent / "programs/budgeted.py"
BUDGETS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)


def memtrace(*words: str) -> subprocess.CompletedProcess[str]:
    """Run memtrace."""
    return subprocess.run([sys.executable, "-m", "memtrace", *words], capture_output=True, text=True)


def compiled(budget: float, folder: Path) -> tuple[int, float]:
    """Return peak and seconds of a step of the compiled program."""
    trace = str(folder / f"{budget}.json")
    done = memtrace("record", "-o", trace, "--", sys.executable, str(PROGRAM), "--budget", str(budget))
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    # Without a recorder beside it: how long a step takes.
    bare = subprocess.run(
        [sys.executable, str(PROGRAM), "--budget", str(budget)], capture_output=True, text=True, check=True
    )
    (rank,) = json.loads(memtrace("report", "--json", trace).stdout)["ranks"]
    return rank["steady_state_peak"]["requested_bytes"], float(bare.stdout.split()[-1])


def fixed(budget_bytes: int, folder: Path) -> dict:
    """Return what `memtrace fix` makes of the plain program."""
    words = ["--json", "--run", "--margin", "0", "--keep", "precision,batch", "--force", "--runs", str(folder / "runs")]
    plan = ["-o", str(folder / "plan.json"), "--capacity", f"{budget_bytes}B"]
    done = memtrace("fix", *words, *plan, "--", sys.executable, str(PROGRAM))
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout)


def row_of(budget: float, peak: int, slowdown: float, found: dict) -> str:
    """Return one row of the table."""
    best = found["rungs"][0]
    if found["fits"]:
        cells = [best["title"], format_bytes(best["reserved_bytes"]), f"{best['slowdown']:+.0%}"]
    else:
        cells = ["refused", format_bytes(found["smallest_bytes"]), ""]
    return f"| {budget} | {format_bytes(peak)} | {slowdown:+.0%} | {' | '.join(cells)} |"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "budgets", nargs="*", type=float, default=BUDGETS, help="The first is what time is held against."
    )
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    heads = ["budget of torch", "its peak", "its time", "fix in as many bytes", "its peak", "its time"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    whole = None
    with tempfile.TemporaryDirectory() as folder:
        for budget in args.budgets:
            peak, seconds = compiled(budget, Path(folder))
            whole = whole or seconds
            lines.append(row_of(budget, peak, seconds / whole - 1, fixed(peak, Path(folder))))
            print(lines[-1], flush=True)
    if args.results is not None:
        args.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
