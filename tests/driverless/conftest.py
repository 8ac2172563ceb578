"""A Python with torch's CUDA build, and programs run by it on devices that are not there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memtrace.driverless.environment import Devices, environment
from memtrace.driverless.torch_build import torch_of
from memtrace.errors import MemtraceError

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".venv-driverless"
OWN_PYTHON = "MEMTRACE_DRIVERLESS_PYTHON"
"""Names another Python whose torch is built for CUDA."""
REQUIRED = "MEMTRACE_REQUIRE_DRIVERLESS"
"""Set where a machine without such a Python must not pass."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def cuda_python() -> str:
    """A Python with a CUDA build of torch; where one is required and there is none, a failure and no skip."""
    python = os.environ.get(OWN_PYTHON) or str(FOLDER / "bin" / "python")
    why = FOLDER / "why-not.txt"
    try:
        torch_of(python)
        environment(Devices(), python=python)
    except MemtraceError as error:
        said = f"; the installation said: {why.read_text(encoding='utf-8').strip()}" if why.is_file() else ""
        missing = pytest.fail if os.environ.get(REQUIRED) else pytest.skip
        missing(f"no torch that runs without a GPU (`make driverless` installs one): {error}{said}")
    return python


@pytest.fixture(scope="session")
def run_driverless(cuda_python: str) -> Run:
    """A function that runs arguments of that Python on some devices and returns what came of it."""

    def run(
        *arguments: str | Path, environ: dict[str, str] | None = None, timeout_s: int = 280, **devices: Any
    ) -> subprocess.CompletedProcess[str]:
        added = environment(Devices(**devices), python=cuda_python)
        return subprocess.run(
            [cuda_python, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **added, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=ROOT,
            check=False,
        )

    return run


def ended_too_early(done: subprocess.CompletedProcess[str]) -> bool:
    """Return whether a program ended so soon after its last backward that torch's thread for it was still letting go.

    That thread then asks for the lock of an interpreter that is gone, and the process aborts after all its work is
    done: torch's own race, seen where the machine is busy.
    """
    return "terminate called without an active exception" in done.stderr + done.stdout


@pytest.fixture(scope="session")
def ask_driverless(run_driverless: Run) -> Ask:
    """A function that runs the text of a program and returns the JSON that it prints last."""

    def ask(program: str, **options: Any) -> Any:
        done = run_driverless("-c", program, **options)
        assert done.returncode == 0 or ended_too_early(done), done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return ask
