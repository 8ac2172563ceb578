"""Estimates of several ranks against recordings of them, a few of those that benchmarks/accuracy_ranks.py runs."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from benchmarks.accuracy_ranks import (
    HEADS,
    HIDDEN,
    LAYERS,
    SEQUENCE,
    VOCABULARY,
    Case,
    cases,
    errors_of,
    estimated,
    kept,
)
from memtrace.forecast.estimation.rank_states import rows_of_rank
from tests.conftest import ROOT


def test_sizes_are_those_of_the_program() -> None:
    tree = ast.parse((ROOT / "benchmarks/programs/train.py").read_text(encoding="utf-8"))
    found: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names = [one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)]
            numbers = [one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant)]
            found |= dict(zip(names, numbers, strict=False))  # type: ignore[arg-type]
    ours = {"HIDDEN": HIDDEN, "LAYERS": LAYERS, "HEADS": HEADS, "SEQUENCE": SEQUENCE, "VOCABULARY": VOCABULARY}
    assert {name: found[name] for name in ours} == ours


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 300])
def test_rows_of_all_ranks_are_the_rows_as_torch_cuts_them(ranks: int) -> None:
    torch = pytest.importorskip("torch")
    for rows in (1, 2, 5, 64, 131):
        sizes = [len(one) for one in torch.arange(rows).chunk(ranks)]
        found = [rows_of_rank(rows, ranks, rank) for rank in range(ranks)]
        assert found == sizes + [0] * (ranks - len(sizes))


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_first_rank_has_the_most_and_errors_are_seen(case: Case) -> None:
    ranks = [estimated(case, rank) for rank in range(case.num_ranks)]
    assert all(one[name] <= ranks[0][name] for one in ranks for name in one)
    assert errors_of(case, ranks) == [{}] * case.num_ranks
    wrong = [*ranks[:-1], {**ranks[-1], "optimizer_state": ranks[-1]["optimizer_state"] + 4}]
    assert errors_of(case, wrong)[-1] == {"optimizer_state": -4}


def test_what_one_end_alone_holds_is_not_kept() -> None:
    """Gloo lets go of a buffer a moment after it said that it is done."""
    buckets, gathered = 442_112, 42_496
    assert kept([{"communication": buckets}, {"communication": buckets + gathered}]) == buckets
    assert kept([{"communication": gathered}, {}]) == 0
    assert kept([{"communication": gathered}] * 2) == gathered


@pytest.mark.slow
def test_recordings_of_four_ranks_are_as_estimated() -> None:
    """DDP, DDP whose gradients are views of its buckets, and FSDP2, with four gloo ranks."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    command = [sys.executable, ROOT / "benchmarks" / "accuracy_ranks.py", "--only", "gpt", "adamw", "fp32", "4"]
    ran = subprocess.run(command, text=True, capture_output=True, timeout=280)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = [line for line in ran.stdout.splitlines() if line.startswith("|")]
    assert [line.split()[4] for line in rows] == ["ddp", "ddp-views", "fsdp2"]
    assert "12 of 12 ranks exact" in ran.stdout
    # Not every rank of FSDP2 has the same, or nothing would be told apart.
    assert len(set(rows[2].split("|")[4].split(", "))) > 1


def test_an_estimate_beside_a_recording_is_of_its_rank() -> None:
    from memtrace.forecast.estimation.estimate import estimate
    from memtrace.forecast.estimation.rank_states import for_rank
    from memtrace.forecast.memory.layout import Layout, Run
    from memtrace.forecast.model.presets import preset

    spec, run, layout = preset("gpt2"), Run(), Layout(dp=8, zero=3)
    whole = estimate(spec, run, layout)
    states = [for_rank(whole, spec, run, layout, rank).state_bytes for rank in range(8)]
    assert states[0] == whole.state_bytes
    # 50257 rows: seven ranks have 6283 of them, the last has 6276; bytes a parameter are 12, with the master copy.
    assert states[:7] == [states[0]] * 7
    assert states[0] - states[7] == 7 * 768 * 12
    for other in (Layout(dp=8), Layout(dp=8, tp=2, zero=3)):
        assert for_rank(whole, spec, run, other, 7) is whole
    assert for_rank(whole, spec, run, layout, None) is whole
