"""What `memtrace fix` reaches: programs at budgets of 90, 70, 50 and 35 % of what they need as they are.

python benchmarks/fix.py [MODEL …] [--results FILE]: each is run on the CPU, for real, so that time is measured and
losses are compared to the last bit. A budget is met by a verified peak at most as large; how far below it stays is in
the table, and a budget that nothing meets is named with the smallest peak that was reached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memtrace.units import format_bytes

HERE = Path(__file__).parent
PROGRAM = HERE / "programs/fixable.py"
SHARES = (0.9, 0.7, 0.5, 0.35)
MODELS = ("gpt2", "llama", "bert", "t5", "vit", "unet", "lora", "gan", "moe", "moe-balanced", "resnet")
SAMPLES = {
    "gpt-sample": [HERE.parent / "samples/train_gpt.py", "--layers", "6", "--steps", "4", "--device", "cpu"],
    "resnet-sample": [HERE.parent / "samples/train_resnet.py", "--steps", "4", "--device", "cpu"],
}
SHARDED = {"ddp-sample": "train_ddp.py", "fsdp2-sample": "train_fsdp2.py"}
"""Programs of several ranks: predicted, as rank 0 of 8."""
PREDICTED_SIZES = ("--steps", "4", "--layers", "8", "--hidden", "512", "--heads", "8", "--sequence", "512")


def fix(options: list[str], command: list[str]) -> dict[str, object]:
    """Return the answer of one search."""
    done = subprocess.run(
        [sys.executable, "-m", "memtrace", "fix", "--json", "--margin", "0", *options, "--", *command],
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def command_of(name: str) -> tuple[list[str], list[str]]:
    """Return how a program is run, and the options of the search."""
    if name in SHARDED:
        sample = str(HERE.parent / "samples" / SHARDED[name])
        return [sys.executable, sample, "--device", "cuda", *PREDICTED_SIZES], ["--world-size", "8"]
    sample = SAMPLES.get(name)
    words = [str(word) for word in sample] if sample else [str(PROGRAM), name]
    return [sys.executable, *words], ["--run"]


def rows_of(name: str, folder: Path) -> list[str]:
    """Return a row for each budget of a program."""
    command, options = command_of(name)
    plan = str(folder / f"{name}.json")
    keep = ["--keep", "precision,batch", "--runs", str(folder / f"{name}.runs")]
    plain = fix([*options, *keep, "--capacity", "1TiB", "-o", plan, "--force"], command)["plain"]
    rows = []
    for share in SHARES:
        budget = int(plain["reserved_bytes"] * share)
        began = time.monotonic()
        found = fix([*options, *keep, "--capacity", f"{budget}B", "-o", plan, "--force"], command)
        rows.append(row_of(name, share, budget, found, time.monotonic() - began))
        print(rows[-1], flush=True)
    return rows


def row_of(name: str, share: float, budget: int, found: dict, seconds: float) -> str:
    """Return one row of the table."""
    best = found["rungs"][0]
    if not found["fits"]:
        reached = found["smallest_bytes"]
        cells = ["refused", format_bytes(reached), f"{reached / budget:.2f}", "", "", ""]
    else:
        num = len(best["changes"].get("recompute", ()))
        others = sorted(set(best["changes"]) - {"recompute", "saved"})
        kept = sorted({one.rpartition(".")[2] for one in best["changes"].get("saved", ())})
        but = f" (of {num_owners(best['changes'])} not: {', '.join(kept)})" if kept else ""
        cells = [
            ", ".join([f"{num} computed again{but}", *others] if num else others),
            format_bytes(best["reserved_bytes"]),
            f"{best['reserved_bytes'] / budget:.2f}",
            "" if best["slowdown"] is None else f"{best['slowdown']:+.0%}",
            {True: "equal", False: "differ", None: "not computed"}[best["losses_equal"]],
            str(len(found["rungs"])),
        ]
    return f"| {name} | {share:.0%} | {format_bytes(budget)} | {' | '.join(cells)} | {seconds:.0f} s |"


def num_owners(changes: dict) -> int:
    """Return of how many modules results of operators are kept."""
    return len({one.rpartition(":")[0] for one in changes["saved"]})


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=[*SAMPLES, *MODELS, *SHARDED])
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    heads = ["program", "budget", "bytes", "chosen", "reached", "of budget", "time", "losses", "runs", "search"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            lines += rows_of(name, Path(folder))
    if args.results is not None:
        args.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
