"""The accuracy matrix, a few of it: every pair of model, optimizer, precision, mode and parallelism occurs in a run.

`make accuracy` runs all of it. Each run is compared with the account that the same program, run bare, gives of its own
memory; `benchmarks/programs/` is that program, and knows nothing of memtrace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.matrix.runs import Config, combinations_of_all, missing_pairs, pairwise, special_cases
from tests.conftest import ROOT, RunMemtrace
from tests.warm.start import warm_python

pytest.importorskip("torch")
pytest.importorskip("transformers")

NUM_SHARES = 2
PROGRAM = ROOT / "benchmarks" / "programs" / "train.py"


def few() -> list[Config]:
    """Return the configurations that run here: pairwise combinations, and each special case with one model."""
    first = {config.extra: config for config in reversed(special_cases())}
    return [*pairwise(combinations_of_all()), *first.values()]


def test_few_configurations_cover_every_pair() -> None:
    assert missing_pairs(few(), combinations_of_all()) == set()
    assert {config.extra for config in few()} >= {config.extra for config in special_cases()}
    assert len(few()) < len(combinations_of_all()) / 10


def test_a_pair_that_is_left_out_is_missed() -> None:
    all_of_them = combinations_of_all()
    without = [config for config in all_of_them if (config.model, config.optimizer) != ("llama", "sgd")]
    assert missing_pairs(without, all_of_them) == {("model", "llama", "optimizer", "sgd")}


@pytest.mark.slow
@pytest.mark.parametrize("share", range(NUM_SHARES))
def test_recordings_agree_with_the_programs_own_account(tmp_path: Path, share: int) -> None:
    names = [config.name for config in few()[share::NUM_SHARES]]
    results = tmp_path / "results.jsonl"
    command = [sys.executable, ROOT / "benchmarks" / "accuracy.py", "--results", results, "--work"]
    ran = subprocess.run(command, input=json.dumps(["", names]), text=True, capture_output=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    rows = {row["name"]: row for row in map(json.loads, results.read_text().splitlines())}
    assert list(rows) == names
    assert {name: row for name, row in rows.items() if not row.get("is_exact")} == {}
    assert any(row["errors"]["peak_bytes"] > 1_000_000 for row in rows.values())


@pytest.mark.slow
def test_a_recording_under_torchrun_agrees_as_well(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    from benchmarks.matrix.compare import compare
    from memtrace.store.reading.read import read_trace

    torchrun = (warm_python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = (*torchrun, str(PROGRAM), "--model", "gpt", "--parallel", "fsdp2", "--steps", "2")
    environ = {"OMP_NUM_THREADS": "1", "PYTHON_EXEC": warm_python()}
    for option in ("account", "count-saved"):
        bare = (*command, f"--{option}", str(tmp_path / f"{option}RANK.json"))
        subprocess.run(bare, env={**os.environ, **environ}, check=True, capture_output=True, timeout=120)
    recorded = run_memtrace("record", "-o", tmp_path / "trace.json", "--", *command, env=environ)
    assert recorded.returncode == 0, recorded.stderr
    ranks = read_trace(tmp_path / "trace.json").ranks
    assert [rank.rank for rank in ranks] == [0, 1]
    files = [(tmp_path / f"account{number}.json", tmp_path / f"count-saved{number}.json") for number in (0, 1)]
    errors = [compare(rank, *accounts) for rank, accounts in zip(ranks, files, strict=True)]
    assert all(one.is_exact for one in errors), errors
    assert any(one.padding > 0 for one in errors), "nothing was sharded unevenly"
