"""GPUs by the name that `--gpu` takes: what the driver says of each, per vendor's data sheet and as torch reports it.

Memory is what a process can get of a card of that size, as `torch.cuda.get_device_properties` reports it, to a tenth
of a GiB. What follows from the compute capability alone is in `LIMITS`, from the CUDA programming guide's table.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from memtrace.errors import MemtraceError
from memtrace.units import parse_size

_KIB, _MIB, _GIB = 1024, 1024**2, 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One kind of GPU, as the driver describes it."""

    name: str
    """Name that torch reports."""
    memory_bytes: int
    capability: tuple[int, int]
    """Compute capability, which decides the kernels that torch chooses."""
    multiprocessors: int
    l2_bytes: int
    bus_bits: int
    """Width of the memory's bus."""
    clock_mhz: int
    """Highest clock of the multiprocessors."""
    memory_clock_mhz: int
    has_peers: bool = True
    """Whether two of them in a machine reach each other's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a multiprocessor of a compute capability holds."""

    threads: int
    blocks: int
    shared_bytes: int
    """Shared memory."""
    shared_block_bytes: int
    """Shared memory that one block may ask for."""


def _limits(threads: int, blocks: int, shared_kib: int, block_kib: int) -> Limits:
    return Limits(threads=threads, blocks=blocks, shared_bytes=shared_kib * _KIB, shared_block_bytes=block_kib * _KIB)


LIMITS = {
    (7, 0): _limits(2048, 32, 96, 96),
    (7, 5): _limits(1024, 16, 64, 64),
    (8, 0): _limits(2048, 32, 164, 163),
    (8, 6): _limits(1536, 16, 100, 99),
    (8, 9): _limits(1536, 24, 100, 99),
    (9, 0): _limits(2048, 32, 228, 227),
    (10, 0): _limits(2048, 32, 228, 227),
    (10, 3): _limits(2048, 32, 228, 227),
    (12, 0): _limits(1536, 24, 100, 99),
}
"""By compute capability of NVIDIA's GPUs."""


def _card(
    name: str, gib: float, capability: tuple[int, int], multiprocessors: int, l2_mib: int, bus_bits: int,
    clocks_mhz: tuple[int, int], *, has_peers: bool = True,
) -> Card:  # fmt: skip
    return Card(
        name=name,
        memory_bytes=round(gib * _GIB),
        capability=capability,
        multiprocessors=multiprocessors,
        l2_bytes=l2_mib * _MIB,
        bus_bits=bus_bits,
        clock_mhz=clocks_mhz[0],
        memory_clock_mhz=clocks_mhz[1],
        has_peers=has_peers,
    )


CARDS = {
    "v100-16gb": _card("Tesla V100-SXM2-16GB", 15.8, (7, 0), 80, 6, 4096, (1530, 877)),
    "v100-32gb": _card("Tesla V100-SXM2-32GB", 31.7, (7, 0), 80, 6, 4096, (1530, 877)),
    "t4-16gb": _card("Tesla T4", 14.6, (7, 5), 40, 4, 256, (1590, 5001)),
    "a10g-24gb": _card("NVIDIA A10G", 22.1, (8, 6), 80, 6, 384, (1710, 6251)),
    "l4-24gb": _card("NVIDIA L4", 22.0, (8, 9), 58, 48, 192, (2040, 6251)),
    "l40s-48gb": _card("NVIDIA L40S", 44.4, (8, 9), 142, 96, 384, (2520, 9001)),
    "rtx3090-24gb": _card("NVIDIA GeForce RTX 3090", 23.6, (8, 6), 82, 6, 384, (1695, 9751), has_peers=False),
    "rtx4090-24gb": _card("NVIDIA GeForce RTX 4090", 23.5, (8, 9), 128, 72, 384, (2520, 10501), has_peers=False),
    "rtx5090-32gb": _card("NVIDIA GeForce RTX 5090", 31.4, (12, 0), 170, 96, 512, (2407, 14001), has_peers=False),
    "a100-40gb": _card("NVIDIA A100-SXM4-40GB", 39.4, (8, 0), 108, 40, 5120, (1410, 1215)),
    "a100-80gb": _card("NVIDIA A100-SXM4-80GB", 79.1, (8, 0), 108, 40, 5120, (1410, 1593)),
    "h20-96gb": _card("NVIDIA H20", 95.0, (9, 0), 78, 60, 6144, (1980, 2619)),
    "h100-80gb": _card("NVIDIA H100 80GB HBM3", 79.1, (9, 0), 132, 50, 5120, (1980, 2619)),
    # Meta's H100 with HBM2e, of torchtitan's benchmarks: 2.4 TB/s.
    "h100-96gb": _card("NVIDIA H100", 95.0, (9, 0), 132, 50, 6144, (1980, 1593)),
    "h100-pcie-80gb": _card("NVIDIA H100 PCIe", 79.1, (9, 0), 114, 50, 5120, (1755, 1593)),
    "h200-141gb": _card("NVIDIA H200", 139.8, (9, 0), 132, 60, 6144, (1980, 3201)),
    "b200-192gb": _card("NVIDIA B200", 178.3, (10, 0), 148, 126, 8192, (1965, 3996)),
    "b300-288gb": _card("NVIDIA B300", 267.7, (10, 3), 148, 126, 8192, (2032, 3996)),
    "gb200-186gb": _card("NVIDIA GB200", 184.0, (10, 0), 152, 126, 8192, (2062, 3996)),
    "gb300-288gb": _card("NVIDIA GB300", 276.0, (10, 3), 152, 126, 8192, (2032, 3996)),
    "mi250x-64gb": _card("AMD Instinct MI250X", 64.0, (9, 0), 110, 8, 4096, (1700, 1600)),
    "mi300x-192gb": _card("AMD Instinct MI300X", 191.9, (9, 4), 304, 4, 8192, (2100, 2600)),
    "mi325x-256gb": _card("AMD Instinct MI325X", 255.9, (9, 4), 304, 4, 8192, (2100, 3000)),
    "mi355x-288gb": _card("AMD Instinct MI355X", 287.9, (9, 5), 256, 4, 8192, (2400, 4000)),
}
"""By the name that `--gpu` takes."""


def card_named(text: str) -> str | None:
    """Return the name of the card that a text names, whole or by its family where that has one card.

    >>> card_named("GB200"), card_named(" h100-80gb"), card_named("h100"), card_named("24GiB")
    ('gb200-186gb', 'h100-80gb', None, None)
    """
    name = text.strip().lower()
    family = [one for one in CARDS if one.startswith(f"{name}-")]
    return name if name in CARDS else family[0] if len(family) == 1 else None


def card_like(name: str, capability: tuple[int, int]) -> Card | None:
    """Return the card of a name, else NVIDIA's largest of that compute capability; `None` if there is none of either.

    >>> card_like("a100-80gb", (8, 0)) is CARDS["a100-80gb"], card_like("24GiB", (9, 0)) is CARDS["h100-80gb"]
    (True, True)
    >>> card_like("24GiB", (6, 0))
    """
    alike = [one for one in CARDS.values() if one.capability == capability and not is_amd(one)]
    return CARDS.get(name) or max(alike, key=lambda one: one.multiprocessors, default=None)


def memory_named(text: str) -> int:
    """Return the bytes of a GPU that is named, or of a size such as "24GiB".

    >>> memory_named("24GiB") == 24 * 1024**3, memory_named("H100-80GB") == CARDS["h100-80gb"].memory_bytes
    (True, True)

    Raises:
        MemtraceError: it is neither.
    """
    card = card_named(text)
    if card is not None:
        return CARDS[card].memory_bytes
    name = text.strip().lower()
    try:
        return parse_size(text)
    except MemtraceError as error:
        # What begins with a digit was meant as a size.
        if name[:1].isdigit():
            raise
        near = difflib.get_close_matches(name, CARDS, n=3, cutoff=0.3) or ["h100-80gb", "a100-80gb", "rtx4090-24gb"]
        hint = f"try {', '.join(near)}, or a size such as 24GiB"
        raise MemtraceError(f"there is no GPU {text[:60]!r}, and it is not a size", hint=hint) from error


def is_amd(card: Card) -> bool:
    """Return whether a card is AMD's.

    >>> is_amd(CARDS["mi300x-192gb"]), is_amd(CARDS["t4-16gb"])
    (True, False)
    """
    return card.name.startswith("AMD")
