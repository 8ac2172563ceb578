"""How well the steady-state peak is predicted from the first step alone.

    python benchmarks/steady_state.py [--only WORD] [--device cuda] [--no-write]

Each case is recorded over four steps. The recording is cut in the first step, or right after it; what is predicted
from the rest stands beside the largest peak of steps 2 to 4. The table goes to `benchmarks/results/`. CUDA needs two
GPUs, or the stand-ins for two (`python -m memtrace.driverless.start --devices 2 -- …`). Exit status 1 says that a
prediction is off by more than 2 %, or below by more than 1 %, or that its range does not hold what was recorded. Where
nothing in the cut recording can tell what the next step does, only the range counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.matrix.runs import WHERE, Config, import_everything, kind_of_device, record
from benchmarks.steady.cases import CASES, LAST_LINE, PROGRAM, Case
from benchmarks.steady.compare import Comparison, compare
from benchmarks.steady.cut import Cut
from memtrace.store.reading.read import read_trace
from memtrace.units import format_bytes

RESULTS = Path(__file__).parent / "results"
DISTRIBUTED = (
    Config("gpt", "adamw-fused", "fp32", "accumulate", "ddp"),
    Config("resnet", "sgd-momentum", "fp32", "plain", "ddp-views"),
    Config("llama", "adamw-fused", "fp32", "plain", "fsdp2"),
    Config("gpt2", "adamw-loop", "bf16", "checkpoint", "fsdp2"),
    Config("resnet", "sgd-momentum", "bf16", "plain", "fsdp2"),
    Config("gpt", "adamw-foreach", "fp32", "keep-grads", "fsdp2"),
)
SNAPSHOTS = Path(__file__).parent.parent.parent / "shared" / "data" / "snapshots"
STEPS = 4
MAX_ERROR, MAX_BELOW = 0.02, 0.01
Row = dict[Cut, Comparison]


def is_met(case: Case, cut: Cut, found: Comparison) -> bool:
    """Return whether a prediction meets its target."""
    if not found.is_in_range:
        return False
    return cut in case.untold or -MAX_BELOW <= found.error <= MAX_ERROR


def measure(trace: Path) -> Row:
    """Compare a recording at every cut."""
    (rank,) = read_trace(trace).ranks
    return {cut: compare(rank, cut) for cut in Cut}


def distributed(only: str, folder: Path, device: str) -> Iterator[tuple[Case, Path]]:
    """Yield runs of two ranks, each rank as a case."""
    for config in (config for config in DISTRIBUTED if only in config.name):
        untold = LAST_LINE if config.mode == "keep-grads" else frozenset()
        on_device = dataclasses.replace(config, device=device)
        traces = record(on_device, new_folder(folder, config.name.replace(" ", "_")), STEPS)
        for rank, trace in enumerate(traces):
            yield Case(name=f"{config.name}, rank {rank} of 2", options="", untold=untold), trace


def new_folder(folder: Path, name: str) -> Path:
    """Return a new folder in another."""
    made = folder / name
    made.mkdir()
    return made


def recordings(only: str, folder: Path, device: str) -> Iterator[tuple[Case, Path]]:
    """Yield the cases, each recorded when it is its turn; then what others recorded on GPUs without hooks."""
    import_everything()
    for number, case in enumerate(CASES):
        if only in case.name:
            on_device = dataclasses.replace(case, options=f"{case.options} --device {device}")
            yield case, record(on_device, new_folder(folder, str(number)), STEPS, program=PROGRAM)[0]
    yield from distributed(only, folder, device)
    if device != "cpu":
        return
    for path in sorted(SNAPSHOTS.glob("gpt-train-3-steps-from-process-start-*.pickle")):
        if only in path.stem:
            yield Case(name=f"torch snapshot of a GPU, no hooks: {path.stem}", options=""), path


def cell(case: Case, cut: Cut, found: Comparison) -> str:
    """Return one error as text."""
    text = f"{100 * found.error:+.2f} %"
    if cut in case.untold:
        text += " (untold)"
    return text if is_met(case, cut, found) else f"**{text}**"


def table(rows: Iterable[tuple[Case, Row]]) -> list[str]:
    """Return the table."""
    lines = [
        "| run | steady-state peak | in | " + " | ".join(cut.value for cut in Cut) + " |",
        "|---|---|---|" + "---|" * len(Cut),
    ]
    for case, row in rows:
        recorded = row[Cut.STEP].recorded
        cells = " | ".join(cell(case, cut, row[cut]) for cut in Cut)
        lines.append(f"| {case.name} | {format_bytes(recorded.requested_bytes)} | {recorded.phase} | {cells} |")
    return lines


def summary(rows: Sequence[tuple[Case, Row]]) -> list[str]:
    """Return the worst cases in words."""
    told = [(case, cut, row[cut]) for case, row in rows for cut in Cut if cut not in case.untold]
    worst = max(told, key=lambda one: abs(one[2].error))
    below = min(told, key=lambda one: one[2].error)
    missed = [(case, cut) for case, row in rows for cut in Cut if not is_met(case, cut, row[cut])]
    return [
        f"{len(told)} predictions. Worst: {100 * worst[2].error:+.2f} % ({worst[0].name}, {worst[1].value}); "
        f"most below: {100 * below[2].error:+.2f} % ({below[0].name}, {below[1].value}).",
        f"Within 2 % and not below by more than 1 %: {'all' if not missed else f'not {len(missed)} of them'}.",
        "",
        "*untold*: gradients are kept (`set_to_none=False`) by a line that had not run yet. Nothing recorded by then",
        "tells; the prediction assumes torch's default, says so, and its range holds what was recorded.",
    ]


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases with this in their name")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    rows = []
    # One thread: buffers of threads then do not depend on the machine's cores. The runs inherit it.
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        for case, trace in recordings(options.only, Path(folder), options.device):
            rows.append((case, measure(trace)))
            print(table(rows[-1:])[-1], flush=True)
    today = datetime.date.today().isoformat()
    import torch

    kind = kind_of_device(options.device)
    heading = [f"# The steady state predicted from the first step{WHERE[kind]}, {today}", ""]
    machine = (
        f"Torch {torch.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}."
    )
    lines = [*heading, *summary(rows), "", machine, "", *table(rows), ""]
    print("\n".join(lines))
    if not options.no_write:
        name = "-".join(["steady-state", *([kind] if kind != "cpu" else []), today])
        RESULTS.joinpath(f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
    return int(any(not is_met(case, cut, row[cut]) for case, row in rows for cut in Cut))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
