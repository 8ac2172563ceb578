"""What hardware and a framework's kernels reach, in few numbers.

Each number is fitted to published runs by benchmarks/plan_published.py, which also says how well runs that the fit did
not see agree; what is read from source code or a data sheet says so. A framework differs from another in a factor of
its kernels, in how long its Python takes for a layer, and in what it overlaps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What is assumed of hardware in use and of the program that uses it."""

    compute_share: float = 0.75
    """Share of the data sheet's throughput that a large matrix product reaches."""
    later_share: float = 1.0
    """What GPUs after the A100 reach of their data sheets, as a share of what the A100 reaches of its own."""
    half_tokens: float = 0.0
    """Tokens of a micro-batch on a rank with which a product reaches half of that."""
    half_width: float = 0.0
    """Width of a rank's part of a matrix with which it does; see `mean_width`."""
    attention_share: float = 0.5
    """Share of the data sheet's throughput that a fused attention kernel reaches."""
    scores_share: float = 0.3
    """The same of the products of attention that is written out, whose inner side is the width of a head."""
    memory_share: float = 0.8
    """Share of the memory's bandwidth that kernels reach which only move values."""
    layer_bytes: float = 60.0
    """Bytes that such kernels (norms, rotations, activations, residuals) move a token and element of the hidden size,
    in forward and backward of a layer."""
    launch_s: float = 0.0
    """Seconds that the program's own code takes for forward and backward of a layer; computation cannot be faster."""
    crowded_launch_s: float = 0.0
    """The same of a pipeline's stage, for each of the tensor-parallel ranks, which get into each other's way."""
    unaligned_share: float = 1.0
    """Share of its speed that attention keeps where a head's width is no multiple of 8."""
    share_8bit: float = 0.75
    """Share of what 16-bit products reach of their data sheet, that FP8 products reach of theirs, but for casts."""
    bandwidth_share: float = 0.75
    """Share of a link's bandwidth that collectives reach."""
    latency_s: float = 0.0
    """Seconds of a collective inside a machine whatever its size; twice as long for each doubling of machines."""
    across_share: float = 0.5
    """Share of that which tensor parallelism across machines reaches, with all the network cards of its ranks."""
    across_latency_s: float = 0.0
    """Seconds of a round of tensor parallelism for each machine that it spans, whatever its size."""
    bucket_bytes: float = 25 * 1024**2
    """Bytes of gradients that are reduced in one message: torch's `bucket_cap_mb`, Megatron's `--ddp-bucket-size`."""
    overlap: float = 1.0
    """Share of communication that could be hidden behind computation which is."""
    send_s: float = 0.0
    """Seconds in which a pipeline stage hands on a micro-batch, whatever its size."""


_PLAIN = Speed(
    compute_share=0.8,
    later_share=0.9,
    half_tokens=400,
    half_width=900,
    layer_bytes=130,
    attention_share=0.27,
    unaligned_share=0.11,
    share_8bit=0.9,
    launch_s=0.7e-3,
    bandwidth_share=0.85,
    latency_s=20e-6,
    # Runs of 1B to 8B with tp 16 and 32 in the playbook's sweep: 7 and 16 ms a layer beside what grows with the
    # micro-batch, which with tp 16 goes at 170 to 240 GB/s over 8 cards of 50.
    across_latency_s=0.9e-3,
    overlap=0.45,
    send_s=0.2e-3,
)

SPEEDS: dict[str, Speed] = {
    "none": _PLAIN,
    # 139 runs of llm-foundry, 125M to 70B on 8 to 128 A100.
    "fsdp": replace(_PLAIN, compute_share=0.91, half_tokens=465, half_width=940, layer_bytes=169, overlap=0.36),
    # 68 runs of BLOOM's search with Megatron-DeepSpeed, which was Megatron-LM of 2021.
    "deepspeed": replace(
        _PLAIN, compute_share=0.735, bucket_bytes=10**9, half_tokens=533, half_width=1030, overlap=0.44
    ),
    # 8 runs of Korthikanti et al. on A100, and 38 of NVIDIA's collection on H100.
    "megatron": replace(
        _PLAIN,
        compute_share=0.955,
        later_share=0.923,
        half_tokens=293,
        half_width=1690,
        layer_bytes=172,
        # cuDNN on an H100: benchmarks/published/fit.py says from where.
        attention_share=0.44,
        bucket_bytes=160 * 10**6,
    ),
    # 440 runs of the playbook on up to 8 nodes.
    "nanotron": replace(
        _PLAIN,
        compute_share=0.586,
        half_tokens=392,
        half_width=454,
        launch_s=4.59e-3,
        crowded_launch_s=2.89e-3,
        send_s=0.212e-3,
    ),
    # 4 runs of torchtitan, two of them compiled: too few to fit more than one number.
    "torchtitan": replace(_PLAIN, compute_share=0.535),
}
"""By framework; benchmarks/results/plan-published has what each came to."""


def speed_of(framework: str, compute_share: float | None = None) -> Speed:
    """Return the speed of a framework; a given share replaces that of its matrix products.

    >>> speed_of("none", 0.5).compute_share
    0.5
    """
    speed = SPEEDS.get(framework, SPEEDS["none"])
    return speed if compute_share is None else replace(speed, compute_share=compute_share)


def scaled(speed: Speed, factor: float) -> Speed:
    """Return a speed with which every step takes so many times as long: kernels, code and links alike.

    >>> scaled(Speed(compute_share=0.8, launch_s=0.5), 2.0).compute_share
    0.4
    """
    shares = ("compute_share", "attention_share", "scores_share", "memory_share", "bandwidth_share")
    seconds = ("launch_s", "crowded_launch_s", "latency_s", "across_latency_s", "send_s")
    return replace(
        speed,
        **{name: getattr(speed, name) / factor for name in shares},
        **{name: getattr(speed, name) * factor for name in seconds},
    )
