"""Builds the stand-ins of NVIDIA's libraries for one torch, once, and keeps them in the user's cache folder.

In: a build of torch. Out: a folder of shared libraries named as torch asks for them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from memtrace.driverless.stubs import answered_in, stub_source, version_script
from memtrace.driverless.symbols import Wanted, wanted_symbols
from memtrace.driverless.torch_build import TorchBuild
from memtrace.errors import MemtraceError

HERE = Path(__file__).parent
SOURCES = HERE / "sources"
CORE = "libmemtrace-driverless.so"
"""The library that holds what the others share: devices, memory, streams."""
_CORE_SOURCES = ("core.c", "memory.c", "data.c", "streams.c")
_FLAGS = ("-std=gnu11", "-O1", "-shared", "-fPIC", "-w", "-fno-strict-aliasing")
_GENERATORS = ("rules.py", "stubs.py", "symbols.py", "elf.py", "build.py")


def built_libraries(torch: TorchBuild, *, cache: Path | None = None) -> list[Path]:
    """Return the stand-ins for a torch, built if they are not there yet; those that others need come first.

    Raises:
        MemtraceError: there is no C compiler, or it failed.
    """
    folder = (cache or cache_folder()) / f"{torch.version}-{_fingerprint(torch)}"
    if not folder.is_dir():
        _build(torch, folder)
    return [folder / CORE, *sorted(path for path in folder.iterdir() if path.name != CORE)]


def cache_folder() -> Path:
    """Return the folder of the user in which stand-ins are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "memtrace" / "driverless"


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
        "no C compiler: the stand-ins for NVIDIA's libraries are built on first use",
        hint="install one (`apt-get install gcc`), or `pip install 'memtrace[driverless]'`, which brings one",
    )


def _fingerprint(torch: TorchBuild) -> str:
    """Return a short hash of all that decides what is built."""
    digest = hashlib.sha256(repr((torch.version, torch.cuda, torch.revision, torch.cudnn, torch.nccl)).encode())
    for path in [*sorted(SOURCES.iterdir()), *(HERE / name for name in _GENERATORS)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(torch: TorchBuild, folder: Path) -> None:
    command = compiler()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="build-", dir=folder.parent))
    except OSError as error:
        raise MemtraceError(
            f"cannot write to {folder.parent}: {error}", hint="XDG_CACHE_HOME names another folder for caches"
        ) from error
    try:
        (work / "lib").mkdir()
        _compile_all(command, torch, work)
        # Two processes may build at once: the first to finish wins, and both made the same.
        try:
            (work / "lib").rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _compile_all(command: Sequence[str], torch: TorchBuild, work: Path) -> None:
    major, minor = torch.cuda
    versions = {"CUDA_MAJOR": major, "CUDA_VERSION": 1000 * major + 10 * minor}
    versions |= {"CUDNN_VERSION": torch.cudnn, "NCCL_VERSION": torch.nccl}
    flags = [*_FLAGS, *(f"-D{name}={value}" for name, value in versions.items()), f"-I{SOURCES}"]
    _compile([*command, *flags, *(str(SOURCES / name) for name in _CORE_SOURCES)], work / "lib" / CORE)
    for wanted in wanted_symbols(torch.libraries).values():
        _compile([*command, *flags, *_inputs(wanted, work)], work / "lib" / wanted.file)


def _inputs(wanted: Wanted, work: Path) -> list[str]:
    """Return the files and options for one library, written where they are generated."""
    stubs = work / f"{wanted.file}.c"
    own = SOURCES / wanted.library.file.replace(".so", ".c")
    answered = answered_in(own.read_text(encoding="utf-8")) if own.is_file() else set()
    stubs.write_text(stub_source(wanted, answered), encoding="utf-8")
    inputs = [str(stubs), *([str(own)] if own.is_file() else [])]
    script = version_script(wanted)
    if script is not None:
        path = work / f"{wanted.file}.map"
        path.write_text(script, encoding="utf-8")
        inputs.append(f"-Wl,--version-script={path}")
    return [*inputs, str(work / "lib" / CORE), "-Wl,-rpath,$ORIGIN"]


def _compile(command: list[str], output: Path) -> None:
    command = [*command, "-o", str(output), f"-Wl,-soname,{output.name}", "-ldl", "-lpthread"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise MemtraceError(f"cannot run the C compiler: {error}") from error
    if done.returncode:
        last = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-300:])
        raise MemtraceError(f"the C compiler did not make {output.name}: {last}")
