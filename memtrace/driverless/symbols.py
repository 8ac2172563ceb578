"""Which functions of NVIDIA's libraries an installed torch wants: it is linked with them, or looks them up by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from memtrace.driverless.elf import ElfFile, Symbol
from memtrace.driverless.rules import Library, library_in, library_of
from memtrace.errors import MemtraceError

_LOOKED_UP = r"(?:cu[A-Z][a-z]|nvml[A-Z])\w+"
"""Names that torch gives to `dlsym` and to `cudaGetDriverEntryPoint`: of the driver and of NVML."""
_ALWAYS = ("libcuda.so.1", "libnvidia-ml.so.1")
"""Libraries that are opened at run time, whether torch is linked with them or not."""
OF_TRITON = (
    "cuCtxGetCurrent cuCtxGetLimit cuCtxSetCurrent cuCtxSetLimit cuDeviceGet cuDeviceGetAttribute "
    "cuDevicePrimaryCtxRetain cuDriverGetVersion cuFuncGetAttribute cuFuncSetAttribute cuFuncSetCacheConfig "
    "cuGetErrorString cuLaunchKernel cuLaunchKernelEx cuMemAlloc_v2 cuMemFree_v2 cuMemcpyDtoH_v2 cuModuleGetFunction "
    "cuModuleLoadData cuOccupancyMaxActiveClusters cuPointerGetAttribute cuPointerGetAttributes "
    "cuTensorMapEncodeIm2col cuTensorMapEncodeTiled"
)
"""What Triton's launcher, which it compiles when it is first used, is linked with or looks up."""
_PREFIXES = ("libcu", "libnv", "libnccl")
"""How the files of NVIDIA's libraries begin."""


@dataclass(slots=True, kw_only=True)
class Wanted:
    """What torch wants of one library."""

    library: Library
    file: str
    """Name of the file with its number, such as "libcudart.so.13"."""
    version: str | None = None
    """Version that the symbols must have."""
    names: set[str] = field(default_factory=set)
    """Functions."""


def wanted_symbols(folder: Path) -> dict[str, Wanted]:
    """Return by file what the libraries of torch in a folder want.

    Raises:
        MemtraceError: torch needs a library of NVIDIA's that is not known.
    """
    symbols: list[Symbol] = []
    files = set(_ALWAYS)
    for path in sorted(folder.glob("*.so")):
        elf = ElfFile(path)
        files |= {name for name in elf.needed() if name.startswith(_PREFIXES)}
        symbols += elf.undefined()
        symbols += [Symbol(name=word) for word in sorted(elf.words(_LOOKED_UP))]
        elf.close()
    symbols += [Symbol(name=word) for word in OF_TRITON.split()]
    found = {file: _wanted(file) for file in sorted(files)}
    for symbol in symbols:
        one = _home(symbol, found)
        if one is not None:
            one.names.add(symbol.name)
            one.version = one.version or symbol.version
    return found


def _wanted(file: str) -> Wanted:
    library = library_in(file)
    if library is None:
        raise MemtraceError(
            f"this torch needs {file}, for which memtrace has no stand-in",
            hint="torch 2.6 to 2.13 for CUDA 12 and 13 are known to do without; please report this one",
        )
    return Wanted(library=library, file=file)


def _home(symbol: Symbol, found: dict[str, Wanted]) -> Wanted | None:
    """Return where a symbol belongs; `None` if it is none of NVIDIA's."""
    if symbol.library is not None:
        return found.get(symbol.library)
    library = library_of(symbol.name)
    return next((one for one in found.values() if one.library is library), None) if library else None
