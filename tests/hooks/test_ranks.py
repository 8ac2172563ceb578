"""Rank facts come from the launcher's variables, the innermost launcher first."""

from __future__ import annotations

import os
import socket
import sys
from types import SimpleNamespace

import pytest

from memtrace.hooks.parts.who_am_i import environment_facts, library_facts, rank_facts, version_facts

TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
SRUN = {"SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (None, None, None)),
        (TORCHRUN, (5, 1, 8)),
        (SRUN, (2, 0, 4)),
        (SRUN | TORCHRUN, (5, 1, 8)),
        ({"SLURM_PROCID": "3"}, (3, None, None)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "9"}, (None, None, None)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (None, None, None)),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
            (1, 1, 2),
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, None, 2)),
        ({"RANK": "gold"}, (None, None, None)),
    ],
    ids=["none", "torchrun", "srun", "torchrun in srun", "bare", "batch", "one task", "openmpi", "mpich", "other"],
)
def test_rank(environ: dict[str, str], expected: tuple[int | None, ...]) -> None:
    facts = rank_facts(environ)
    assert (facts["rank"], facts["local_rank"], facts["world_size"]) == expected
    assert (facts["host"], facts["pid"]) == (socket.gethostname(), os.getpid())


def test_only_listed_environment_values_are_kept() -> None:
    environ = {"WANDB_API_KEY": "secret", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "GPU-8932f937"}
    kept = {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "GPU-8932f937"}
    assert environment_facts(False, environ) == kept
    assert environment_facts(True, environ) == {"OMP_NUM_THREADS": "2"}
    assert environment_facts(True, {"CUDA_VISIBLE_DEVICES": "0,1"}) == {"CUDA_VISIBLE_DEVICES": "0,1"}


def test_of_libraries_those_that_are_imported_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(__version__="5.17.0"))
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "peft", None)
    told = library_facts()
    assert told["transformers"] == "5.17.0"
    assert not {"timm", "peft"} & set(told)


def test_versions_are_those_of_the_loaded_torch() -> None:
    torch = pytest.importorskip("torch")
    facts = version_facts()
    assert facts["torch"] == torch.__version__
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
