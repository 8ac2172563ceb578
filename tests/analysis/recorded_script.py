"""Scripts beside the tests that record many small programs in one process, since starting torch is what takes long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_script(root: Path, name: str, *arguments: object, timeout_s: int = 300) -> None:
    """Run tests/analysis/NAME.py, which records into the folder that its arguments name; it must end well."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(root / "tests/analysis" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr
