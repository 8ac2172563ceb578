"""Runs of more bytes than 64 bits count are refused; up to there a larger run needs more: nothing wrapped round."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from memtrace.cli import group

MODEL = {"model_type": "llama", "hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8}
MODEL |= {"intermediate_size": 4096, "vocab_size": 1000, "max_position_embeddings": 2**30}
REFUSED = "more bytes than can be counted"


def ask(words: str) -> tuple[int, Any, str]:
    result = CliRunner().invoke(group, words.split())
    assert "bug in memtrace" not in result.output
    return result.exit_code, json.loads(result.stdout) if result.stdout else None, result.stderr


def config(tmp_path: Path, **changes: int) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**MODEL, **changes}))
    return path


@pytest.mark.parametrize("name", ["hidden_size", "intermediate_size", "vocab_size"])
def test_estimate_grows_until_it_is_refused(name: str, tmp_path: Path) -> None:
    peaks = []
    for power in range(10, 31):
        words = f"estimate --config {config(tmp_path, **{name: 2**power})} --json --micro-batch 1024 --seq 1048576"
        code, answer, said = ask(words)
        if code:
            assert REFUSED in said
            break
        peaks.append(max(one["peak_bytes"] for one in answer["phases"]))
    else:
        assert max(peaks) < 2**62
    assert len(peaks) > 5
    assert all(before < after for before, after in pairwise(peaks))


@pytest.mark.parametrize("power", range(10, 31, 4))
def test_plan_says_that_nothing_fits_or_is_refused(power: int, tmp_path: Path) -> None:
    path = config(tmp_path, hidden_size=2**power)
    code, answer, said = ask(f"plan --config {path} --gpus 8 --gpu 80GiB --gbs-tokens 4M --seq 1048576 --json")
    # 8 GPUs hold 640 GiB; 12 h² parameters a layer of 2^18 are more in weights alone.
    if power >= 18:
        assert code in (1, 3)
        assert (REFUSED in said) if code == 1 else answer["num_fitting"] == 0


def test_row_of_a_table_is_named(tmp_path: Path) -> None:
    table = tmp_path / "layouts.csv"
    columns = "hidden,layers,heads,gpu,sequence,micro_batch\n"
    table.write_text(f"{columns}1024,8,8,24GiB,1024,1\n10000000,4000,1,24GiB,1000000,1\n")
    code, _, said = ask(f"plan --evaluate {table} --json")
    assert code == 1
    assert f"row 2 needs {REFUSED}" in said


@pytest.mark.parametrize(
    "words",
    [
        "estimate --layers 100 --hidden 10000000 --heads 1 --micro-batch 1000000 --seq 1000000000 --json",
        "estimate --params 1B --micro-batch 1000000 --seq 1000000000 --attention explicit --json",
        "plan --params 1B --gpus 8 --gpu 24GiB --gbs-tokens 99T --seq 1000000000 --attention explicit",
    ],
)
def test_extremes_of_the_command_line_are_refused(words: str) -> None:
    code, _, said = ask(words)
    assert code == 1
    assert REFUSED in said or "more than a plan can count" in said
