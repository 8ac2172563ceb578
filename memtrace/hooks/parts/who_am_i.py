"""Who this process is: rank, host, versions, and the few environment values that change memory.

Ranks never talk to each other here: every fact comes from the environment that a launcher set.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Mapping
from typing import Any

from memtrace.schema.environment import RECORDED_VARIABLES

_LAUNCHERS: tuple[tuple[str, str, str], ...] = (
    ("RANK", "LOCAL_RANK", "WORLD_SIZE"),  # torchrun, accelerate, deepspeed
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("PMI_RANK", "MPI_LOCALRANKID", "PMI_SIZE"),  # MPICH, Intel MPI
    ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"),  # srun
)
"""Variables for rank, local rank and world size, the innermost launcher first: srun starts torchrun."""

_DEVICE_NAMES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")

_LIBRARIES = (
    "transformers",
    "torchvision",
    "timm",
    "diffusers",
    "peft",
    "accelerate",
    "lightning",
    "pytorch_lightning",
    "deepspeed",
    "bitsandbytes",
)
"""Libraries that models and their training are made of, by the names under which they are imported."""


def rank_facts(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return rank, local_rank and world_size (None outside a distributed run), host and pid of this process."""
    environ = os.environ if environ is None else environ
    facts: dict[str, Any] = {"rank": None, "local_rank": None, "world_size": None}
    for rank, local_rank, world_size in _LAUNCHERS:
        if _number(environ, rank) is None or (rank == "SLURM_PROCID" and _is_single_task(environ)):
            continue
        facts["rank"] = _number(environ, rank)
        facts["local_rank"] = _number(environ, local_rank)
        facts["world_size"] = _number(environ, world_size)
        break
    facts["host"] = socket.gethostname()
    facts["pid"] = os.getpid()
    return facts


def environment_facts(redact: bool, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the listed environment values that are set. Redaction drops names of devices (they can be UUIDs)."""
    environ = os.environ if environ is None else environ
    return {
        name: environ[name]
        for name in RECORDED_VARIABLES
        if name in environ and not (redact and name in _DEVICE_NAMES and not _is_index_list(environ[name]))
    }


def version_facts() -> dict[str, str | None]:
    """Return the versions of python, of the system, and of torch and its accelerator runtime where torch is loaded."""
    facts: dict[str, str | None] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    torch = sys.modules.get("torch")
    if torch is None:
        return facts
    facts["torch"] = _text(getattr(torch, "__version__", None))
    version = getattr(torch, "version", None)
    for runtime in ("cuda", "hip", "xpu"):
        found = _text(getattr(version, runtime, None))
        if found is not None:
            facts[runtime] = found
    return facts


def library_facts() -> dict[str, str]:
    """Return the versions of the libraries whose code decides what a model keeps, as far as they are imported."""
    versions = {name: _text(getattr(sys.modules.get(name), "__version__", None)) for name in _LIBRARIES}
    return {name: version for name, version in versions.items() if version is not None}


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _is_single_task(environ: Mapping[str, str]) -> bool:
    """Whether Slurm's numbers describe no parallel run: a batch script has SLURM_PROCID=0 as well, but no step."""
    return environ.get("SLURM_NTASKS") == "1" or ("SLURM_JOB_ID" in environ and "SLURM_STEP_ID" not in environ)


def _is_index_list(text: str) -> bool:
    return all(part.strip().lstrip("-").isdigit() for part in text.split(",")) if text else True


def _text(value: object) -> str | None:
    return None if value is None else str(value)
