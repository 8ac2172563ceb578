"""How far a prediction may be off, from how far it was off for published runs, and which layouts lie beyond those.

In: a framework, a layout's numbers. Out: factors for time and memory, a verdict on memory, sentences. The factors are
the 5th and 95th percentiles of published over predicted, by framework, of benchmarks/plan_published.py; where a source
tells no memory, those of the frameworks that do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from memtrace.forecast.gpus import Gpu
from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.results import Calibration

YES, CLOSE, NO = "yes", "close", "no"
WORDS = {YES: "fits", CLOSE: "close", NO: "does not fit"}
"""How each verdict is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Factors between which what is published lies, over what is predicted."""

    throughput: tuple[float, float]
    memory: tuple[float, float]


_MEMORY = (0.85, 1.1)
DOUBTS = {
    "none": Doubt(throughput=(0.7, 1.2), memory=_MEMORY),
    "fsdp": Doubt(throughput=(0.87, 1.09), memory=_MEMORY),
    "deepspeed": Doubt(throughput=(0.93, 1.05), memory=(0.93, 1.1)),
    # Of few models; so the throughputs are those of models that the numbers were not fitted to. Two runs of NVIDIA's
    # collection say what they reserved: 1.02 and 1.03 of what is predicted.
    "megatron": Doubt(throughput=(0.89, 1.09), memory=(0.85, 1.05)),
    "torchtitan": Doubt(throughput=(0.9, 1.08), memory=(0.85, 1.05)),
    # One run of ten in the sweep was far slower than its neighbours, for reasons that it does not tell; slow ones hold
    # less memory than others like them.
    "nanotron": Doubt(throughput=(0.42, 1.17), memory=(0.73, 1.05)),
}
"""By framework."""


_MOST_OF_8BIT = 1.1
"""Of FP8 no published run tells its memory but one that ran out of it in every second try, at 1.08 of what is predicted
(Llama 3 70B, tp 4, pp 4, 5 stages a rank, on 32 H100: Megatron-Bridge, pull request 3107)."""
CALIBRATED = {
    "fsdp": Doubt(throughput=(0.9, 1.1), memory=(0.87, 1.17)),
    "deepspeed": Doubt(throughput=(0.92, 1.09), memory=(0.87, 1.17)),
    "megatron": Doubt(throughput=(0.97, 1.03), memory=(0.87, 1.17)),
}
"""By framework, between which runs were after another of their group was known; the others stay as they are."""


def doubt_of(framework: str, known: Calibration | None = None, *, is_8bit: bool = False) -> Doubt:
    """Return the doubt of a framework, after a calibration where there is one.

    >>> [doubt_of("megatron", is_8bit=is_8bit).memory for is_8bit in (False, True)]
    [(0.85, 1.05), (0.85, 1.1)]
    """
    plain = DOUBTS[framework]
    if is_8bit:
        plain = replace(plain, memory=(plain.memory[0], max(plain.memory[1], _MOST_OF_8BIT)))
    if known is None:
        return plain
    after = CALIBRATED.get(framework, plain)
    return replace(after, memory=after.memory if known.memory_factor != 1 else plain.memory)


def verdicts(needed: Size, capacity: int, doubt: Doubt) -> npt.NDArray[np.str_]:
    """Return `yes` where a layout fits with what the doubt adds, `no` where it does not with what that takes off.

    >>> gib = 2**30
    >>> verdicts(np.array([60, 75, 88, 95]) * gib, 80 * gib, DOUBTS["fsdp"]).tolist()
    ['yes', 'close', 'close', 'no']
    """
    low, high = doubt.memory
    fits, may_fit = np.asarray(needed) * high <= capacity, np.asarray(needed) * low <= capacity
    return np.where(fits, YES, np.where(may_fit, CLOSE, NO))


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """What published runs of a framework cover: the least and the most of each."""

    gpus: tuple[int, int]
    parameters: tuple[float, float]
    sequence: tuple[int, int]
    tp: int
    pp: int
    cp: int
    generations: tuple[int, ...]
    """Major compute capability."""


_ALL = Regime(gpus=(8, 2048), parameters=(1e8, 1.1e12), sequence=(512, 65536), tp=32, pp=64, cp=2, generations=(8, 9))
PUBLISHED = {
    "none": _ALL,
    "fsdp": Regime(gpus=(8, 128), parameters=(1e8, 7e10), sequence=(512, 65536), tp=1, pp=1, cp=1, generations=(8,)),
    "deepspeed": Regime(
        gpus=(320, 384), parameters=(1.7e11, 2.1e11), sequence=(2048, 2048), tp=8, pp=12, cp=1, generations=(8,)
    ),
    "megatron": Regime(
        gpus=(8, 2048), parameters=(7e9, 1.1e12), sequence=(2048, 8192), tp=8, pp=64, cp=2, generations=(8, 9)
    ),
    "torchtitan": Regime(
        gpus=(8, 128), parameters=(7e9, 9e9), sequence=(8192, 8192), tp=1, pp=1, cp=1, generations=(9,)
    ),
    "nanotron": Regime(
        gpus=(8, 512), parameters=(1e9, 9e10), sequence=(4096, 4096), tp=32, pp=32, cp=1, generations=(9,)
    ),
}
"""By framework, from the files that benchmarks/plan_published.py reads."""


def beyond_published(
    framework: str,
    gpu: Gpu,
    *,
    parameters: int,
    gpus: int,
    sequence: int,
    tp: int,
    pp: int,
    cp: int,
    has_experts: bool,
    schedule: str = "1f1b",
) -> tuple[str, ...]:
    """Return in which respects no published run is like a layout, in words.

    >>> from memtrace.forecast.gpus import gpu_named
    >>> beyond_published("fsdp", gpu_named("h100-80gb"), parameters=7 * 10**9, gpus=8, sequence=4096, tp=2, pp=1, cp=1,
    ...                  has_experts=False)
    ('GPU h100-80gb', 'tp 2 (to 1)')
    """
    known = PUBLISHED[framework]
    found = [] if gpu.capability[0] in known.generations and not gpu.is_amd else [f"GPU {gpu.name}"]
    for name, value, (least, most) in (
        ("GPUs", gpus, known.gpus),
        ("parameters", parameters, known.parameters),
        ("sequence", sequence, known.sequence),
    ):
        if not least <= value <= most:
            found.append(f"{value:,} {name} ({least:,.0f} to {most:,.0f})")
    for name, value, largest in (("tp", tp, known.tp), ("pp", pp, known.pp), ("cp", cp, known.cp)):
        if value > largest:
            found.append(f"{name} {value} (to {largest})")
    found += [] if schedule == "1f1b" else [f"schedule {schedule}"]
    return (*found, *(("experts",) if has_experts else ()))
