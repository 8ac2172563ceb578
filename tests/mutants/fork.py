"""Running pytest in forks of a process that has imported what takes long to import, on a copy of the checkout.

memtrace itself is never imported here: each fork imports it afresh, and one module of it may be replaced on the way.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import pytest

SLOW_IMPORTS = ("click", "hypothesis", "numpy", "orjson", "pandas", "rich.console", "torch")


def import_what_is_slow() -> None:
    """Import what the tests would each import; what is not installed is left to the tests to skip."""
    for name in SLOW_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def copy_checkout(checkout: Path, into: Path) -> Path:
    """Copy what git knows or would add of a checkout, so that nothing a test does can reach the original."""
    listed = subprocess.run(
        ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    copy = into / "checkout"
    for name in listed.stdout.decode().split("\0"):
        if name and (checkout / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, copy / name)
    if (checkout.parent / "shared").is_dir():
        (into / "shared").symlink_to(checkout.parent / "shared")
    return copy


class ReplacedSource(SourceFileLoader):
    """Loads one module from given source under its own name and path. Nothing is written, no byte code either."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        """Compile the given source in place of the file's."""
        return self.source_to_code(self.source, self.path)


class ReplacingFinder:
    """Finds one module ahead of all other finders."""

    def __init__(self, name: str, path: Path, source: bytes) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where the module comes from, or None for any other."""
        if name != self.name:
            return None
        loader = ReplacedSource(name, str(self.path), self.source)
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


def replace_module(copy: Path, path: str, source: bytes) -> None:
    """Have the module at `path`, below `copy`, imported from `source`."""
    parts = Path(path).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    sys.meta_path.insert(0, ReplacingFinder(name, copy / path, source))  # type: ignore[arg-type]


def run_pytest(copy: Path, arguments: Sequence[str], plugin: object) -> int:
    """Run pytest on the copy, in this process, and return its exit status."""
    base = copy.parent / f"base-{os.getpid()}"
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--tb=short",
        f"--rootdir={copy}",
        f"--basetemp={base}",
    ]
    # memtrace is a pytest plugin, so that pytest would import its modules itself, past the finder of the fault.
    options += ["--assert=plain"]
    try:
        return int(pytest.main([*options, *arguments], plugins=[plugin]))
    finally:
        shutil.rmtree(base, ignore_errors=True)


def fork(copy: Path, log: Path, work: Callable[[], int]) -> int:
    """Start `work` in a fork with the modules of the copy, its output in a file; return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(copy)
        sys.path[0] = str(copy)
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
