"""GPUs by name: memory, dense throughput, bandwidth of memory and links, compute capability, per vendor's data sheet.

In: a name, or a size such as "24GiB". Out: a `Gpu`. Memory is what a process can get of a card of that size, as
`torch.cuda.get_device_properties` reports it, to a tenth of a GiB; bandwidths are one way, per GPU.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from memtrace.errors import MemtraceError
from memtrace.schema.gpu_data_sheets import peak_flops
from memtrace.units import parse_bytes

GIB = 1024**3
_GB_S = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One kind of GPU in its usual machine."""

    name: str
    memory_bytes: int
    flops: float
    """Dense 16-bit floating point operations a second, without sparsity."""
    flops_8bit: float | None = None
    """The same of FP8; `None` where the GPU has none."""
    memory_bytes_s: float = 2.0e12
    """Bytes a second of the GPU's own memory."""
    intra_bytes_s: float
    """Bytes a second to GPUs of the same machine, one way: NVLink, Infinity Fabric, or PCIe."""
    inter_bytes_s: float
    """Bytes a second to other machines. Assumed: the network card that usual machines have for each GPU."""
    gpus_per_node: int = 8
    capability: tuple[int, int] = (8, 0)
    """Compute capability, which decides the kernels that torch chooses."""
    is_amd: bool = False


_Sheet = tuple[float, float, float, float]
"""GiB of memory, GB/s of it, GB/s to GPUs of the same machine and to others."""


def _gpu(name: str, device: str, sheet: _Sheet, capability: tuple[int, int], gpus_per_node: int = 8) -> Gpu:
    flops = peak_flops(device, "float16")
    assert flops is not None, f"no data sheet for {device}"
    gib, memory_gb, intra_gb, inter_gb = sheet
    return Gpu(
        name=name,
        memory_bytes=round(gib * GIB),
        flops=float(flops),
        flops_8bit=peak_flops(device, "float8"),
        memory_bytes_s=memory_gb * _GB_S,
        intra_bytes_s=intra_gb * _GB_S,
        inter_bytes_s=inter_gb * _GB_S,
        gpus_per_node=gpus_per_node,
        capability=capability,
        is_amd=name.startswith("mi"),
    )


GPUS = {
    one.name: one
    for one in (
        _gpu("v100-16gb", "Tesla V100-SXM2-16GB", (15.8, 900, 150, 12.5), (7, 0)),
        _gpu("v100-32gb", "Tesla V100-SXM2-32GB", (31.7, 900, 150, 12.5), (7, 0)),
        _gpu("t4-16gb", "Tesla T4", (14.6, 320, 16, 6.25), (7, 5)),
        _gpu("a10g-24gb", "NVIDIA A10G", (22.1, 600, 32, 6.25), (8, 6)),
        _gpu("l4-24gb", "NVIDIA L4", (22.0, 300, 32, 6.25), (8, 9)),
        _gpu("l40s-48gb", "NVIDIA L40S", (44.4, 864, 32, 12.5), (8, 9)),
        _gpu("rtx3090-24gb", "NVIDIA GeForce RTX 3090", (23.6, 936, 32, 6.25), (8, 6)),
        _gpu("rtx4090-24gb", "NVIDIA GeForce RTX 4090", (23.5, 1008, 32, 6.25), (8, 9)),
        _gpu("rtx5090-32gb", "NVIDIA GeForce RTX 5090", (31.4, 1792, 64, 12.5), (12, 0)),
        _gpu("a100-40gb", "NVIDIA A100-SXM4-40GB", (39.4, 1555, 300, 25), (8, 0)),
        _gpu("a100-80gb", "NVIDIA A100-SXM4-80GB", (79.1, 2039, 300, 25), (8, 0)),
        _gpu("h20-96gb", "NVIDIA H20", (95.0, 4000, 450, 50), (9, 0)),
        _gpu("h100-80gb", "NVIDIA H100 80GB HBM3", (79.1, 3350, 450, 50), (9, 0)),
        # Meta's H100 with HBM2e, of torchtitan's benchmarks: 2.4 TB/s.
        _gpu("h100-96gb", "NVIDIA H100", (95.0, 2400, 450, 50), (9, 0)),
        _gpu("h100-pcie-80gb", "NVIDIA H100 PCIe", (79.1, 2000, 64, 50), (9, 0)),
        _gpu("h200-141gb", "NVIDIA H200", (139.8, 4800, 450, 50), (9, 0)),
        _gpu("b200-192gb", "NVIDIA B200", (178.3, 7700, 900, 50), (10, 0)),
        _gpu("b300-288gb", "NVIDIA B300", (267.7, 7700, 900, 100), (10, 3)),
        _gpu("gb200-186gb", "NVIDIA GB200", (184.0, 8000, 900, 50), (10, 0), 72),
        _gpu("gb300-288gb", "NVIDIA GB300", (276.0, 8000, 900, 100), (10, 3), 72),
        _gpu("mi250x-64gb", "AMD Instinct MI250X", (64.0, 1638, 100, 25), (9, 0)),
        _gpu("mi300x-192gb", "AMD Instinct MI300X", (191.9, 5300, 448, 50), (9, 4)),
        _gpu("mi325x-256gb", "AMD Instinct MI325X", (255.9, 6000, 448, 50), (9, 4)),
        _gpu("mi355x-288gb", "AMD Instinct MI355X", (287.9, 8000, 537, 50), (9, 5)),
    )
}
"""By the name that `--gpu` takes."""


def gpus_named(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs of a list such as "a100-40gb,24GiB"; all that are known for "all".

    >>> [one.name for one in gpus_named("a100-40gb, 24GiB")], len(gpus_named("all")) == len(GPUS)
    (['a100-40gb', '24GiB'], True)

    Raises:
        MemtraceError: one of them is none.
    """
    if text.strip() == "all":
        return tuple(GPUS.values())
    return tuple({name: gpu_named(name) for part in text.split(",") if (name := part.strip())}.values())


def gpu_named(text: str) -> Gpu:
    """Return a GPU by name, or one of a stated size, which is an A100 in all else.

    >>> gpu_named("24GiB").memory_bytes == 24 * 1024**3, gpu_named("h100-80gb").flops
    (True, 989000000000000.0)

    Raises:
        MemtraceError: it is neither.
    """
    if text in GPUS:
        return GPUS[text]
    try:
        memory = parse_bytes(text)
        if memory < 1:
            raise MemtraceError("a size of 0 holds nothing")
    except MemtraceError:
        near = difflib.get_close_matches(text, GPUS, n=3, cutoff=0.3) or list(GPUS)
        raise MemtraceError(
            f"there is no GPU {text[:60]!r}", hint=f"try {', '.join(near)}, or a size such as 24GiB"
        ) from None
    return replace(GPUS["a100-80gb"], name=text, memory_bytes=memory)
