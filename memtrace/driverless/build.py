"""Builds the stand-ins of NVIDIA's libraries for one torch, once, and keeps them in the user's cache folder.

In: a build of torch. Out: a folder of shared libraries named as torch asks for them.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from memtrace.c_compiler import cache_folder, compile_library, compiler
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
    folder = (cache or stand_in_folder()) / f"{torch.version}-{_fingerprint(torch)}"
    if not folder.is_dir():
        _build(torch, folder)
    return [folder / CORE, *sorted(path for path in folder.iterdir() if path.name != CORE)]


def stand_in_folder() -> Path:
    """Return the folder of the user in which stand-ins are kept."""
    return cache_folder() / "driverless"


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
    compile_library([*command, *flags, *(str(SOURCES / name) for name in _CORE_SOURCES)], work / "lib" / CORE)
    for wanted in wanted_symbols(torch.libraries).values():
        compile_library([*command, *flags, *_inputs(wanted, work)], work / "lib" / wanted.file)


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
