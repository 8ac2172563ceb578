"""Record programs again for the gold files: `python tests/gold/record.py [NAME…]`, from the root. Needs torch.

Writes `traces/`: all of them, or those that are named. What tells of a machine or a moment is replaced here and
nowhere else: host and process, paths, resident memory, and times, which become their order (10 µs from one distinct
time of a rank to the next).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from memtrace.cli.predicting.runs import PredictedRuns
from memtrace.forecast.gpus import gpu_named
from memtrace.forecast.prediction.judge import placed_trace
from memtrace.forecast.prediction.results import BY_META
from memtrace.schema.redaction import Redaction
from memtrace.schema.tables import TABLES
from memtrace.store.reading.read import read_trace
from memtrace.store.writing.snapshot import snapshot_pickle
from memtrace.store.writing.trace import write_trace
from tests.gold.rendered import NUM_STEPS, PREDICTED_ON, TRACES

ROOT = Path(__file__).parents[2]
SMALL_GPT = "--layers 2 --hidden 64 --micro-batch 4 --steps 3"
CPU = "--device cpu"
TWO_RANKS = "-m torch.distributed.run --nproc-per-node 2"
STEPS = "benchmarks/programs/train_steps.py --hidden 64 --sequence 32 --vocabulary 300 --steps 3"
RUNS = {
    "gpt": f"samples/train_gpt.py {SMALL_GPT} {CPU}",
    "accumulation-checkpointing": f"samples/train_gpt.py {SMALL_GPT} --accumulation 2 --checkpointing {CPU}",
    "oom": f"samples/oom_step_two.py {CPU}",
    "leak": f"samples/leak_losses.py --steps 6 {CPU}",
    "ddp": f"{TWO_RANKS} samples/train_ddp.py {SMALL_GPT} --accumulate 2 {CPU}",
    "resnet": f"samples/train_resnet.py --width 4 --image-size 16 --micro-batch 8 --steps 3 {CPU}",
    "logits": f"samples/big_logits.py --vocabulary 4096 --sequence 64 --steps 3 {CPU}",
    "foreach": f"samples/foreach_peak.py --hidden 128 --layers 4 --steps 3 {CPU}",
    "kept-gradients": f"{STEPS} --bf16 --keep-gradients --attention explicit --dropout 0.1 --zero-grad first",
    "adafactor": f"{STEPS} --optimizer adafactor --implementation foreach --accumulation 2 --zero-grad before-backward",
    "fsdp": f"{TWO_RANKS} samples/train_fsdp2.py {SMALL_GPT} --checkpointing {CPU}",
    "tp": f"{TWO_RANKS} samples/train_tp.py {SMALL_GPT} --sequence-parallel {CPU}",
}
"""What each recording runs, on the CPU."""

TOO_SMALL = "1.022GiB"
"""A GPU that has room beside its context for part of the run only."""
START_NS = 1_700_000_000_000_000_000
TICK_NS = 10_000
DURATIONS_NS = {"backward_ns": 4_000_000, "communication_ns": 2_000_000, "overlap_ns": 1_500_000}
"""What the durations become that DDP measured itself."""
RSS_BYTES = 300 << 20
MOMENTS = {
    (table.name, column.name)
    for table in TABLES
    for column in table.columns
    if column.unit == "ns" and column.meaning.startswith("Unix time")
}
PATHS = {
    f"{ROOT}/": "/home/me/memtrace/",
    f"{sysconfig.get_path('purelib')}/": "/usr/lib/python3/site-packages/",
    f"{sysconfig.get_path('stdlib')}/": "/usr/lib/python3/",
    f"{Path(sys.executable).parent}/": "/usr/bin/",
}


def main(names: Sequence[str]) -> None:
    """Record these runs, or every one."""
    os.chdir(ROOT)
    TRACES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in [one for one in RUNS if not names or one in names]:
            path = Path(folder) / f"{name}.json"
            command = [sys.executable, *RUNS[name].split()]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            recorder = [sys.executable, "-m", "memtrace", "record", "--force", "-o", str(path), "--"]
            subprocess.run([*recorder, *command], check=True, env=environment)
            _keep(path, name)
        if not names or "prediction" in names:
            _predict(Path(folder) / "prediction.json")


def _predict(path: Path) -> None:
    """Keep a run on the fake device before the allocator's part, and after it as a snapshot of torch."""
    gpu = gpu_named(PREDICTED_ON)
    command = [sys.executable, *f"samples/train_gpt.py {SMALL_GPT}".split()]
    runs = PredictedRuns(
        command,
        path,
        BY_META,
        num_steps=NUM_STEPS,
        world_size=1,
        gpus_per_node=None,
        redaction=Redaction.NOTHING,
        force=True,
        allow_writes=False,
        stdout=None,
    )
    write_trace(runs.run(gpu), path)
    _keep(path, "prediction")
    for name, placed_on in (("snapshot", gpu), ("oom-snapshot", gpu_named(TOO_SMALL))):
        placed, _ = placed_trace(read_trace([TRACES / "prediction.json.gz"]), placed_on, ran_as=gpu)
        (TRACES / f"{name}.pickle").write_bytes(snapshot_pickle(placed))


def _keep(path: Path, name: str) -> None:
    """Write a recording to `traces/` without what tells of a machine or a moment."""
    document = _without_paths(json.loads(path.read_text(encoding="utf-8")))
    for number, rank in enumerate(document["ranks"]):
        last = _fix_times(rank["tables"])
        header = rank["header"]
        header |= {"host": "host", "pid": 1000 + number, "start_ns": START_NS, "end_ns": last}
        header |= {"peak_host_rss_bytes": RSS_BYTES, "environment": {"OMP_NUM_THREADS": "1"}}
        steps = rank["tables"]["steps"]
        steps["host_rss_bytes"] = [one and RSS_BYTES for one in steps["host_rss_bytes"]]
    path.write_text(json.dumps(document), encoding="utf-8")
    write_trace(read_trace([path]), TRACES / f"{name}.json.gz")


def _fix_times(tables: dict[str, dict[str, list[Any]]]) -> int:
    """Replace each time by its place in the order of all; return the last."""
    found = {key: tables[key[0]][key[1]] for key in MOMENTS if key[1] in tables.get(key[0], {})}
    distinct = sorted({one for values in found.values() for one in values if one is not None})
    places = {one: START_NS + TICK_NS * (1 + at) for at, one in enumerate(distinct)}
    for (table, column), values in found.items():
        tables[table][column] = [None if one is None else places[one] for one in values]
    timings = tables.get("reducer_timings", {})
    for column in DURATIONS_NS.keys() & timings.keys():
        timings[column] = [one and DURATIONS_NS[column] for one in timings[column]]
    _add_up_own_work(tables)
    return START_NS + TICK_NS * (1 + len(distinct))


def _add_up_own_work(tables: dict[str, dict[str, list[Any]]]) -> None:
    """Let each step say of memtrace's own work what the stretches in it come to."""
    steps, work = tables["steps"], tables["own_work"]
    stretches = list(zip(work["start_ns"], work["end_ns"], strict=True))
    steps["recording_ns"] = [
        sum(until - since for since, until in stretches if first <= since and (last is None or since < last))
        for first, last in zip(steps["start_ns"], steps["end_ns"], strict=True)
    ]


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_paths(one) for one in value]
    if isinstance(value, str):
        for path, stands_in in PATHS.items():
            value = value.replace(path, stands_in)
    return value


if __name__ == "__main__":
    main(sys.argv[1:])
