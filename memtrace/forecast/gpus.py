"""GPUs by name: memory, dense 16-bit throughput, bandwidth to other GPUs, compute capability, per vendor's data sheet.

In: a name, or a size such as "24GiB". Out: a `Gpu`. Memory is what a process can get of a card of that size, as
`torch.cuda.get_device_properties` reports it, to a tenth of a GiB; bandwidths are one way, per GPU.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

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
    intra_bytes_s: float
    """Bytes a second to GPUs of the same machine, one way: NVLink, Infinity Fabric, or PCIe."""
    inter_bytes_s: float
    """Bytes a second to other machines. Assumed: the network card that usual machines have for each GPU."""
    gpus_per_node: int = 8
    capability: tuple[int, int] = (8, 0)
    """Compute capability, which decides the kernels that torch chooses."""
    is_amd: bool = False


def _gpu(name: str, gib: float, device: str, intra_gb: float, inter_gb: float, capability: tuple[int, int]) -> Gpu:
    flops = peak_flops(device, "float16")
    assert flops is not None, f"no data sheet for {device}"
    return Gpu(
        name=name,
        memory_bytes=round(gib * GIB),
        flops=float(flops),
        intra_bytes_s=intra_gb * _GB_S,
        inter_bytes_s=inter_gb * _GB_S,
        capability=capability,
        is_amd=name.startswith("mi"),
    )


GPUS = {
    one.name: one
    for one in (
        _gpu("v100-16gb", 15.8, "Tesla V100-SXM2-16GB", 150, 12.5, (7, 0)),
        _gpu("v100-32gb", 31.7, "Tesla V100-SXM2-32GB", 150, 12.5, (7, 0)),
        _gpu("t4-16gb", 14.6, "Tesla T4", 16, 6.25, (7, 5)),
        _gpu("a10g-24gb", 22.1, "NVIDIA A10G", 32, 6.25, (8, 6)),
        _gpu("l4-24gb", 22.0, "NVIDIA L4", 32, 6.25, (8, 9)),
        _gpu("l40s-48gb", 44.4, "NVIDIA L40S", 32, 12.5, (8, 9)),
        _gpu("rtx3090-24gb", 23.6, "NVIDIA GeForce RTX 3090", 32, 6.25, (8, 6)),
        _gpu("rtx4090-24gb", 23.5, "NVIDIA GeForce RTX 4090", 32, 6.25, (8, 9)),
        _gpu("a100-40gb", 39.4, "NVIDIA A100-SXM4-40GB", 300, 25, (8, 0)),
        _gpu("a100-80gb", 79.1, "NVIDIA A100-SXM4-80GB", 300, 25, (8, 0)),
        _gpu("h100-80gb", 79.1, "NVIDIA H100 80GB HBM3", 450, 50, (9, 0)),
        _gpu("h200-141gb", 139.8, "NVIDIA H200", 450, 50, (9, 0)),
        _gpu("b200-192gb", 178.3, "NVIDIA B200", 900, 50, (10, 0)),
        _gpu("mi250x-64gb", 64.0, "AMD Instinct MI250X", 100, 25, (9, 0)),
        _gpu("mi300x-192gb", 191.9, "AMD Instinct MI300X", 448, 50, (9, 4)),
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
    like = GPUS["a100-80gb"]
    return Gpu(
        name=text,
        memory_bytes=memory,
        flops=like.flops,
        intra_bytes_s=like.intra_bytes_s,
        inter_bytes_s=like.inter_bytes_s,
    )
