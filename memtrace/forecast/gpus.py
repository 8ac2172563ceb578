"""GPUs by name: memory, dense throughput, bandwidth of memory and links, compute capability, per vendor's data sheet.

In: a name, or a size such as "24GiB". Out: a `Gpu`. What the driver says of a card is in `schema/gpu_cards.py`;
bandwidths are one way, per GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from memtrace.schema.cuda_context import USUAL_CONTEXT, Context, context_of
from memtrace.schema.gpu_cards import CARDS, card_named, is_amd, memory_named
from memtrace.schema.gpu_data_sheets import peak_flops

_GB_S = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One kind of GPU in its usual machine."""

    name: str
    """As it is named on the command line."""
    memory_bytes: int
    """What the driver says it has."""
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
    """GPUs of a usual machine."""
    capability: tuple[int, int] = (8, 0)
    """Compute capability, which decides the kernels that torch chooses."""
    is_amd: bool = False
    """Whether ROCm drives it."""
    flops_32bit: float | None = None
    """Operations a second in float32, without TF32; `None` where that is not known."""

    @property
    def context(self) -> Context:
        """What a process takes of it beside torch's allocator."""
        return context_of(CARDS[self.name]) if self.name in CARDS else USUAL_CONTEXT

    def flops_of(self, dtype: str) -> float | None:
        """Return dense operations a second in a precision; `None` where that is not known.

        >>> gpu_named("a100-40gb").flops_of("float32"), gpu_named("a100-40gb").flops_of("float16")
        (19500000000000.0, 312000000000000.0)
        """
        return self.flops if dtype in ("float16", "bfloat16") else self.flops_32bit if dtype == "float32" else None


_Sheet = tuple[float, float, float]
"""GB/s of the GPU's memory, to GPUs of the same machine and to others."""


def _gpu(name: str, sheet: _Sheet, gpus_per_node: int = 8) -> Gpu:
    card = CARDS[name]
    flops = peak_flops(card.name, "float16")
    assert flops is not None, f"no data sheet for {card.name}"
    memory_gb, intra_gb, inter_gb = sheet
    return Gpu(
        name=name,
        memory_bytes=card.memory_bytes,
        flops=float(flops),
        flops_8bit=peak_flops(card.name, "float8"),
        flops_32bit=_as_float(peak_flops(card.name, "float32")),
        memory_bytes_s=memory_gb * _GB_S,
        intra_bytes_s=intra_gb * _GB_S,
        inter_bytes_s=inter_gb * _GB_S,
        gpus_per_node=gpus_per_node,
        capability=card.capability,
        is_amd=is_amd(card),
    )


def _as_float(flops: int | None) -> float | None:
    return None if flops is None else float(flops)


GPUS = {
    one.name: one
    for one in (
        _gpu("v100-16gb", (900, 150, 12.5)),
        _gpu("v100-32gb", (900, 150, 12.5)),
        _gpu("t4-16gb", (320, 16, 6.25)),
        _gpu("a10g-24gb", (600, 32, 6.25)),
        _gpu("l4-24gb", (300, 32, 6.25)),
        _gpu("l40s-48gb", (864, 32, 12.5)),
        _gpu("rtx3090-24gb", (936, 32, 6.25)),
        _gpu("rtx4090-24gb", (1008, 32, 6.25)),
        _gpu("rtx5090-32gb", (1792, 64, 12.5)),
        _gpu("a100-40gb", (1555, 300, 25)),
        _gpu("a100-80gb", (2039, 300, 25)),
        _gpu("h20-96gb", (4000, 450, 50)),
        _gpu("h100-80gb", (3350, 450, 50)),
        _gpu("h100-96gb", (2400, 450, 50)),
        _gpu("h100-pcie-80gb", (2000, 64, 50)),
        _gpu("h200-141gb", (4800, 450, 50)),
        _gpu("b200-192gb", (7700, 900, 50)),
        _gpu("b300-288gb", (7700, 900, 100)),
        _gpu("gb200-186gb", (8000, 900, 50), 72),
        _gpu("gb300-288gb", (8000, 900, 100), 72),
        _gpu("mi250x-64gb", (1638, 100, 25)),
        _gpu("mi300x-192gb", (5300, 448, 50)),
        _gpu("mi325x-256gb", (6000, 448, 50)),
        _gpu("mi355x-288gb", (8000, 537, 50)),
    )
}
"""By the name that `--gpu` takes."""


def lacks_8bit(gpu: Gpu) -> bool:
    """Return whether a GPU is known to have no FP8; of one that is only a size nothing is known.

    >>> [lacks_8bit(gpu_named(name)) for name in ("a100-80gb", "h100-80gb", "80GiB")]
    [True, False, False]
    """
    return gpu.flops_8bit is None and gpu.name in GPUS


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
    name = card_named(text)
    if name is not None:
        return GPUS[name]
    return replace(GPUS["a100-80gb"], name=text, memory_bytes=memory_named(text))
