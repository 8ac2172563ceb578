"""`memtrace predict` of whole programs: the unchanged sample, on a GPU that is not there, against the real host run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from memtrace.schema.names import Category
from memtrace.store.read import read_trace
from memtrace.store.trace import RankTrace

SAMPLES = Path(__file__).parent.parent.parent / "samples"
GPT = [str(SAMPLES / "train_gpt.py"), "--layers", "2", "--sequence", "32", "--micro-batch", "4", "--hidden", "64"]


def memtrace(*words: str | Path, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "memtrace", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def predicted(cwd: Path, *command: str, options: tuple[str, ...] = ()) -> RankTrace:
    memtrace("predict", "-o", "predicted.json", *options, "--", sys.executable, *command, cwd=cwd)
    (rank,) = read_trace([cwd / "predicted.json"]).ranks
    return rank


def recorded(cwd: Path, *command: str) -> RankTrace:
    memtrace("record", "-o", "recorded.json", "--device", "cpu", "--", sys.executable, *command, cwd=cwd)
    (rank,) = read_trace([cwd / "recorded.json"]).ranks
    return rank


def owned(rank: RankTrace, step: int) -> dict[str, dict[str, int]]:
    """Return bytes by name and category of what is owned at the end of a step."""
    owners = rank.table("owners")
    found: dict[str, dict[str, int]] = {}
    for row in np.flatnonzero(owners["step"] == step).tolist():
        category = rank.text(owners["category"][row]) or ""
        if category != Category.INPUT.value:
            found.setdefault(category, {})[rank.text(owners["name"][row]) or ""] = int(owners["tensor_bytes"][row])
    return found


def saved(rank: RankTrace, step: int) -> dict[str, int]:
    """Return the bytes that each class of node keeps for backward in a step; parameters are not in it."""
    table, owners = rank.table("saved"), rank.table("owners")
    kept = set(owners["address"][owners["category"] == rank.string_id(Category.PARAMETER.value)].tolist())
    found: dict[str, int] = {}
    for row in np.flatnonzero(table["step"] == step).tolist():
        if int(table["address"][row]) not in kept:
            op = rank.text(table["op"][row]) or ""
            found[op] = found.get(op, 0) + int(table["size_bytes"][row])
    return found


def test_everything_that_lasts_is_that_of_a_real_run(tmp_path: Path) -> None:
    program = [*GPT, "--attention", "explicit", "--steps", "2"]
    guess = predicted(tmp_path, *program, "--device", "cuda")
    real = recorded(tmp_path, *program, "--device", "cpu")
    expected = owned(real, 2)
    assert {Category.PARAMETER.value, Category.OPTIMIZER_STATE.value, Category.GRADIENT.value} <= expected.keys()
    assert owned(guess, 2) == expected
    # Without dropout and with explicit attention no kernel differs, so that autograd keeps the same bytes.
    assert saved(guess, 2) == saved(real, 2)
