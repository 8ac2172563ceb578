"""The variables under which a child Python finds a GPU that is not there.

In: a GPU of the data sheets, how many, how much memory. Out: environment variables, for `subprocess` or a shell. The
process that asks is not changed: libraries are chosen when a process starts.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from memtrace.driverless.build import built_libraries, stand_in_folder
from memtrace.driverless.torch_build import torch_of
from memtrace.errors import MemtraceError
from memtrace.schema.gpu_cards import CARDS, LIMITS, Card, is_amd
from memtrace.schema.predicted import COMPILED

VARIABLE = "MEMTRACE_DRIVERLESS"
"""What the stand-ins read their devices from."""
MOST_DEVICES = 16
CONTEXT_BYTES = 512 * 1024**2
"""What CUDA takes of a device for itself, unless said otherwise: measured ones are from 135 MiB (T4) to about 600."""
KEEP_COPY_BYTES = 1024**2
"""Largest copy to a device whose bytes are kept, so that they can be read back."""
KEEP_ALL_BYTES = 512 * 1024**2
"""Bytes that one process keeps in all."""
_DRIVER_VERSION = {12: 12090, 13: 13020}
"""CUDA version of the driver, by that of torch: the newest that was known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """The devices of one machine, all alike."""

    gpu: str = "h100-80gb"
    """Name in the data sheets."""
    num_devices: int = 1
    memory_bytes: int | None = None
    """Memory of each; `None` for that of the data sheet."""
    context_bytes: int = CONTEXT_BYTES
    keep_copy_bytes: int = KEEP_COPY_BYTES
    keep_all_bytes: int = KEEP_ALL_BYTES
    log: Path | None = None
    """File that each process appends to what it refused and could not keep."""


def environment(
    devices: Devices, *, python: str = sys.executable, inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the variables to add to those that a process inherits, so that its torch sees these devices.

    Raises:
        MemtraceError: the GPU is not known, or this machine, torch or compiler cannot do it.
    """
    described = described_devices(devices, cuda_major=(torch := torch_of(python)).cuda[0])
    libraries = built_libraries(torch)
    _check_path(libraries[0].parent)
    before = (os.environ if inherited is None else inherited).get("LD_PRELOAD", "")
    preload = [*(str(path) for path in libraries), *(one for one in before.replace(" ", ":").split(":") if one)]
    return {
        VARIABLE: described,
        # Not by LD_LIBRARY_PATH: torch's own search path comes first, and may hold NVIDIA's libraries.
        "LD_PRELOAD": ":".join(dict.fromkeys(preload)),
        "TRITON_LIBCUDA_PATH": str(libraries[0].parent),
        # Folders of their own: what is timed here would be taken for the best on a real device of this name.
        **{name: str(stand_in_folder() / name.partition("_")[0].lower()) for name in COMPILED},
    }


def described_devices(devices: Devices, *, cuda_major: int) -> str:
    """Return the text in which the stand-ins read their devices.

    Raises:
        MemtraceError: the GPU is not known, or cannot be.
    """
    card = _card(devices.gpu)
    limits = LIMITS[card.capability]
    if not 1 <= devices.num_devices <= MOST_DEVICES:
        raise MemtraceError(f"{devices.num_devices} devices: from 1 to {MOST_DEVICES} can be had")
    memory = card.memory_bytes if devices.memory_bytes is None else devices.memory_bytes
    if memory <= devices.context_bytes:
        raise MemtraceError(f"a device of {memory} bytes has no room for a context of {devices.context_bytes}")
    fields: dict[str, object] = {
        "name": card.name,
        "memory": memory,
        "context": devices.context_bytes,
        "devices": devices.num_devices,
        "major": card.capability[0],
        "minor": card.capability[1],
        "multiprocessors": card.multiprocessors,
        "threads_per_multiprocessor": limits.threads,
        "blocks_per_multiprocessor": limits.blocks,
        "shared_per_block": 48 * 1024,
        "shared_per_block_optin": limits.shared_block_bytes,
        "shared_per_multiprocessor": limits.shared_bytes,
        "l2_bytes": card.l2_bytes,
        "bus_bits": card.bus_bits,
        "clock_khz": 1000 * card.clock_mhz,
        "memory_clock_khz": 1000 * card.memory_clock_mhz,
        "driver_version": _DRIVER_VERSION[cuda_major],
        "peer": int(card.has_peers),
        "keep_copy": devices.keep_copy_bytes,
        "keep_all": devices.keep_all_bytes,
    }
    if devices.log is not None:
        fields["log"] = devices.log
    return ";".join(f"{key}={value}" for key, value in fields.items())


def _card(name: str) -> Card:
    card = CARDS.get(name)
    if card is None:
        near = difflib.get_close_matches(name, CARDS, n=3, cutoff=0.3) or list(CARDS)
        raise MemtraceError(f"there is no GPU {name[:60]!r}", hint=f"try {', '.join(near)}")
    if is_amd(card):
        raise MemtraceError(f"{name} is not NVIDIA's: there are stand-ins for NVIDIA's libraries only")
    return card


def _check_path(folder: Path) -> None:
    if any(sign in str(folder) for sign in " :\t\n"):
        raise MemtraceError(
            f"LD_PRELOAD cannot name {str(folder)!r}: it splits at spaces and colons",
            hint="XDG_CACHE_HOME names another folder for caches",
        )
