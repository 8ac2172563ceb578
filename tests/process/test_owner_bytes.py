"""Bytes by owner are exact, for every pair of optimizer, precision, accumulation and checkpointing.

All combinations of them, with other models too, are what `make accuracy` runs.

The expectation comes from the model itself: the same script runs bare under a few lines that sum the bytes of the
distinct storages of parameters, buffers, gradients and optimizer states after each step.
"""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
from pathlib import Path

import pytest

from memtrace.analysis.report import analyze
from memtrace.report.json.report import report_document
from memtrace.store.reading.read import read_trace
from tests.conftest import ROOT, RunMemtrace
from tests.warm.start import warm_python

PROBE = """
import json, runpy, sys
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

def storages(tensors):
    return {t.untyped_storage().data_ptr(): t.numel() * t.element_size() for t in tensors}

def total(tensors):
    return sum(storages(tensors).values())

modules = []
def created(module, args):
    if not modules:
        modules.append(module)
handle = torch.nn.modules.module.register_module_forward_pre_hook(created)

seen = []
def after(optimizer, args, kwargs):
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    seen.append({
        "parameter": total(parameters),
        "gradient": total(p.grad for p in parameters if p.grad is not None),
        "buffer": total(modules[0].buffers()),
        "optimizer_state": total(states),
    })
register_optimizer_step_post_hook(after)
sys.argv = sys.argv[2:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    with open(OUT, "w") as file:
        json.dump(seen, file)
"""

SMALL = ("--steps", "4", "--layers", "2", "--hidden", "32", "--heads", "2", "--sequence", "16", "--micro-batch", "2")


@functools.cache
def expected_bytes(folder: Path, command: tuple[str, ...]) -> list[dict[str, int]]:
    """Run the script bare and return what the model itself says after each optimizer step."""
    probe, out = folder / f"probe{hash(command)}.py", folder / f"expected{hash(command)}.json"
    probe.write_text(f"OUT = {str(out)!r}\n{PROBE}")
    subprocess.run([warm_python(), str(probe), "--", *command], check=True, capture_output=True, timeout=240)
    found: list[dict[str, int]] = json.loads(out.read_text())
    return found


def recorded_ends(run_memtrace: RunMemtrace, tmp_path: Path, command: tuple[str, ...]) -> list[dict[str, int]]:
    """Record the script and return bytes by category at the end of each step, from the report."""
    trace = tmp_path / "trace.json"
    recorded = run_memtrace("record", "-o", trace, "--", warm_python(), *command)
    assert recorded.returncode == 0, recorded.stderr
    (rank,) = report_document(analyze(read_trace(trace)))["ranks"]
    return [step["end"]["by_category"] for step in rank["steps"]]


def check(run_memtrace: RunMemtrace, tmp_path: Path, command: tuple[str, ...], expected: list[dict[str, int]]) -> None:
    """Compare the recording with the model's own account at the end of every step."""
    ends = recorded_ends(run_memtrace, tmp_path, command)
    assert len(expected) == len(ends) > 0
    for number, (account, end) in enumerate(zip(expected, ends, strict=True), start=1):
        owned = {name: end.get(name, 0) for name in account}
        assert owned == account, f"step {number}"
    assert expected[-1]["parameter"] > 0
    assert expected[-1]["gradient"] == expected[-1]["parameter"]


COMBINATIONS = [
    ("adamw", "fp32", "1", False),
    ("adamw", "bf16", "2", True),
    ("sgd", "fp32", "2", False),
    ("sgd", "bf16", "1", True),
    ("sgd-momentum", "fp32", "1", True),
    ("sgd-momentum", "bf16", "2", False),
]


def test_every_pair_occurs() -> None:
    choices = [sorted(set(column), key=str) for column in zip(*COMBINATIONS, strict=True)]
    assert [len(one) for one in choices] == [3, 2, 2, 2]
    for first, second in itertools.combinations(range(len(choices)), 2):
        pairs = {(row[first], row[second]) for row in COMBINATIONS}
        assert pairs == set(itertools.product(choices[first], choices[second]))


@pytest.mark.parametrize(("optimizer", "precision", "accumulation", "checkpointing"), COMBINATIONS)
def test_gpt_owners_are_exact(
    run_memtrace: RunMemtrace,
    tmp_path: Path,
    expectations: Path,
    optimizer: str,
    precision: str,
    accumulation: str,
    checkpointing: bool,
) -> None:
    plain = (str(ROOT / "samples" / "train_gpt.py"), *SMALL, "--device", "cpu", "--optimizer", optimizer)
    # Autocast, accumulation and checkpointing change none of these bytes, so the plain run is the account for all.
    expected = expected_bytes(expectations, plain)
    command = (*plain, "--precision", precision, "--accumulation", accumulation)
    check(run_memtrace, tmp_path, (*command, *(("--checkpointing",) if checkpointing else ())), expected)


def test_resnet_buffers_are_exact(run_memtrace: RunMemtrace, tmp_path: Path, expectations: Path) -> None:
    command = (str(ROOT / "samples" / "train_resnet.py"), "--device", "cpu", "--steps", "3", "--micro-batch", "2")
    check(run_memtrace, tmp_path, command, expected_bytes(expectations, command))


@pytest.fixture(scope="session")
def expectations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which runs of the bare samples leave their accounts."""
    return tmp_path_factory.mktemp("expectations")
