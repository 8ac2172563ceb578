"""Compiles what memtrace has in C, once, and keeps it in the user's cache folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from memtrace.errors import MemtraceError

_SECONDS = 300


def cache_folder() -> Path:
    """Return the folder of the user in which memtrace keeps what it has compiled."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "memtrace"


def compiler() -> list[str]:
    """Return the command of a C compiler.

    Raises:
        MemtraceError: there is none.
    """
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if found is not None:
        return [found]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise MemtraceError(
        "no C compiler: what memtrace has in C is compiled on first use",
        hint="install one (`apt-get install gcc`), or `pip install 'memtrace[driverless]'`, which brings one",
    )


def compile_library(command: Sequence[str], output: Path) -> None:
    """Run a compiler with its options and files, so that it writes a shared library.

    Raises:
        MemtraceError: it cannot be run, or failed.
    """
    command = [*command, "-o", str(output), f"-Wl,-soname,{output.name}", "-ldl", "-lpthread"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise MemtraceError(f"cannot run the C compiler: {error}") from error
    if done.returncode:
        last = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-300:])
        raise MemtraceError(f"the C compiler did not make {output.name}: {last}")


def compiled(name: str, sources: Sequence[Path], flags: Sequence[str]) -> Path:
    """Return a shared library of some sources, compiled if it is not in the cache folder yet.

    Raises:
        MemtraceError: there is no compiler, it failed, or the folder cannot be written to.
    """
    digest = hashlib.sha256(repr((tuple(flags), platform.machine(), platform.libc_ver())).encode())
    for path in sources:
        digest.update(path.read_bytes())
    library = cache_folder() / name / f"{name}-{digest.hexdigest()[:16]}.so"
    if library.is_file():
        return library
    command = [*compiler(), *flags, *(str(path) for path in sources if path.suffix == ".c")]
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            compile_library(command, made)
            # Two processes may compile at once: both made the same.
            made.replace(library)
    except OSError as error:
        raise MemtraceError(
            f"cannot write to {library.parent}: {error}", hint="XDG_CACHE_HOME names another folder for caches"
        ) from error
    return library
