"""The samples run, are reproducible, learn, and know nothing of memtrace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm.start import warm_python

SAMPLES = Path(__file__).parent.parent / "samples"
SMALL_GPT = ("--layers", "2", "--hidden", "32", "--heads", "2", "--sequence", "32", "--micro-batch", "2")
SMALL_RESNET = ("--width", "4", "--micro-batch", "4", "--image-size", "16")


def losses(script: str, *options: str, python: str | None = None) -> list[float]:
    """Run a sample with a small model; return the loss of each step."""
    small = SMALL_GPT if script == "train_gpt.py" else SMALL_RESNET
    command = [python or warm_python(), "-W", "error", str(SAMPLES / script), "--device", "cpu", *small, *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    matches = [re.fullmatch(r"step (\d+) loss ([0-9.]+)", line) for line in lines]
    assert [match and int(match[1]) for match in matches] == list(range(1, len(lines) + 1)), lines
    return [float(match[2]) for match in matches if match]


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("train_gpt.py", ""),
        ("train_gpt.py", "--precision bf16 --optimizer sgd-momentum --accumulation 2 --checkpointing --dropout 0.1"),
        ("train_gpt.py", "--precision fp16 --optimizer sgd --attention explicit --fused"),
        ("train_gpt.py", "--optimizer adagrad --no-foreach"),
        ("train_resnet.py", ""),
        ("train_resnet.py", "--precision bf16 --optimizer adamw --workers 2"),
        ("train_resnet.py", "--precision fp16 --optimizer sgd"),
    ],
)
def test_sample_runs_with_options_and_without_warnings(script: str, options: str) -> None:
    # Without options by Python itself: what torch warns of while it is imported counts as well.
    python = None if options else sys.executable
    assert len(losses(script, "--steps", "2", *options.split(), python=python)) == 2


@pytest.mark.parametrize("script", ["train_gpt.py", "train_resnet.py"])
def test_same_seed_gives_the_same_losses(script: str) -> None:
    first, again, other = (losses(script, "--steps", "2", "--seed", seed) for seed in ("3", "3", "4"))
    assert first == again
    assert first != other


def test_gpt_learns() -> None:
    first, *_, last = losses("train_gpt.py", "--steps", "30", "--lr", "0.01")
    assert last < first - 0.5


def test_checkpointing_changes_memory_but_no_loss() -> None:
    assert losses("train_gpt.py", "--steps", "2") == losses("train_gpt.py", "--steps", "2", "--checkpointing")


@pytest.mark.parametrize("script", ["train_ddp.py", "train_fsdp2.py", "train_tp.py"])
def test_ranks_ask_for_the_launcher_that_starts_them(script: str) -> None:
    command = [warm_python(), str(SAMPLES / script)]
    environ = {name: value for name, value in os.environ.items() if name != "RANK"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environ)
    assert ran.returncode == 2
    assert "torchrun" in ran.stderr


@pytest.mark.parametrize("script", sorted(SAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_sample_does_not_name_memtrace(script: Path) -> None:
    assert "memtrace" not in script.read_text(encoding="utf-8").lower()
    assert script.name in (SAMPLES / "README.md").read_text(encoding="utf-8")
