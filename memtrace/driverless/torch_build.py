"""The torch that a Python has: found and read without importing it."""

from __future__ import annotations

import ast
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memtrace.errors import MemtraceError

_WHERE = (
    "import importlib.util as u, sys; s = u.find_spec('torch'); sys.stdout.write(s.origin if s and s.origin else '')"
)
_OLDEST = (2, 6)
_NEEDS = "CUDA without a GPU needs torch 2.6 or newer for CUDA 12 or 13, on x86-64 Linux"


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchBuild:
    """One installed CUDA build of torch."""

    folder: Path
    """The package."""
    version: str
    cuda: tuple[int, int]
    """Version of CUDA that it is built for."""
    revision: str
    """Commit that it is built from."""

    cudnn: int
    """Version of cuDNN that it asks for, as cuDNN counts: 92000 is 9.20.0."""
    nccl: int
    """Version of NCCL that it asks for, as NCCL counts."""

    @property
    def libraries(self) -> Path:
        """The folder of its shared libraries."""
        return self.folder / "lib"


def python_of(command: Sequence[str]) -> str:
    """Return the Python whose torch a program uses: the one it names, or that beside the script that it names.

    Raises:
        MemtraceError: there is no program.
    """
    if not command:
        raise MemtraceError("no program: it comes after --")
    program = shutil.which(command[0]) or command[0]
    if Path(program).name.startswith("python"):
        return program
    beside = Path(program).parent / "python"
    return str(beside) if beside.exists() else sys.executable


def torch_of(python: str = sys.executable) -> TorchBuild:
    """Return the torch that a Python would import.

    Raises:
        MemtraceError: there is none, or none that can be run without a GPU.
    """
    check_machine()
    try:
        done = subprocess.run([python, "-c", _WHERE], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise MemtraceError(f"cannot ask {python} for its torch: {error}") from error
    if not done.stdout:
        raise MemtraceError(f"{python} has no torch", hint=_NEEDS)
    return read_build(Path(done.stdout).parent)


def check_machine() -> None:
    """Refuse machines on which the stand-ins do not work.

    Raises:
        MemtraceError: this is one.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise MemtraceError(f"{_NEEDS}: this machine is {platform.system()} on {platform.machine()}")


def read_build(folder: Path) -> TorchBuild:
    """Return the facts of a torch from its `version.py`.

    Raises:
        MemtraceError: it is not a CUDA build, or too old.
    """
    facts = _constants(folder / "version.py")
    version, cuda = str(facts.get("__version__", "")), facts.get("cuda")
    if not cuda:
        raise MemtraceError(
            f"torch {version} in {folder} is not built for CUDA",
            hint="`pip install --no-deps torch` from PyPI is; NVIDIA's libraries are not needed",
        )
    numbers = tuple(int(part) for part in str(cuda).split(".")[:2])
    release = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
    if release < _OLDEST or numbers[0] not in (12, 13):
        raise MemtraceError(f"torch {version} is built for CUDA {cuda}", hint=_NEEDS)
    return TorchBuild(
        folder=folder,
        version=version,
        cuda=(numbers[0], numbers[1]),
        revision=str(facts.get("git_version", "")),
        cudnn=_asked_version(folder, "cudnn", otherwise=90100),
        nccl=_asked_version(folder, "nccl", otherwise=22100),
    )


def _asked_version(folder: Path, library: str, *, otherwise: int) -> int:
    """Return the version of a library that the package requires; `otherwise` if its metadata does not say."""
    asked = re.compile(rf"^Requires-Dist: nvidia-{library}-cu\d+ ?\(?==(\d+)\.(\d+)\.(\d+)", re.MULTILINE)
    for path in folder.parent.glob("torch-*.dist-info/METADATA"):
        found = asked.search(path.read_text(encoding="utf-8", errors="replace"))
        if found:
            major, minor, patch = (int(part) for part in found.groups())
            return 10000 * major + 100 * minor + patch
    return otherwise


def _constants(path: Path) -> dict[str, object]:
    """Return the names that a file of Python assigns a constant to."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise MemtraceError(f"cannot read {path}: {error}") from error
    found: dict[str, object] = {}
    for node in tree.body:
        value = getattr(node, "value", None)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                found[target.id] = value.value
    return found
