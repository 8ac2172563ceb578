"""Links between the ranks of an axis: how fast a ring of them is, and how long a message of no bytes takes.

Ranks are placed with tensor parallelism innermost, then context, then data, then pipeline parallelism. A group that
fits into a machine uses its fast links. One that does not has as many network cards in each machine as it has ranks
there, since every GPU has its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtrace.forecast.gpus import Gpu
from memtrace.forecast.memory.formulas import Size
from memtrace.forecast.step_time.speed import Speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The links of one cluster."""

    gpu: Gpu
    speed: Speed

    def bandwidth(self, inner: Size, ranks: Size) -> Size:
        """Return bytes a second and rank, one way, of a ring of ranks that lie `inner` GPUs apart.

        Of eight GPUs a machine a data-parallel group with tp = 2 holds four in each, which share four network cards:
        200 GB/s of 4 x 50, where one alone would have 50. Inside a machine it is NVLink's 450, of which a share is
        reached.

        >>> from memtrace.forecast.gpus import gpu_named
        >>> links = Links(gpu=gpu_named("h100-80gb"), speed=Speed(bandwidth_share=1.0))
        >>> [float(links.bandwidth(2, ranks)) / 1e9 for ranks in (4, 32)]
        [450.0, 200.0]
        """
        near = inner * ranks <= self.gpu.gpus_per_node
        of_machine = np.maximum(
            1, np.minimum(ranks, self.gpu.gpus_per_node // np.minimum(inner, self.gpu.gpus_per_node))
        )
        across = np.minimum(self.gpu.intra_bytes_s, of_machine * self.gpu.inter_bytes_s)
        return self.speed.bandwidth_share * np.where(near, self.gpu.intra_bytes_s, across)

    def one_to_one(self, span: Size) -> Size:
        """Return bytes a second of a rank that shares no network card: among `span` neighbouring GPUs.

        Of stages and all-to-alls each rank sends on its own.
        """
        across = min(self.gpu.inter_bytes_s, self.gpu.intra_bytes_s)
        return self.speed.bandwidth_share * np.where(span <= self.gpu.gpus_per_node, self.gpu.intra_bytes_s, across)

    def tensor_parallel(self, ranks: Size, num_bytes: Size) -> Size:
        """Return the seconds of a round of tensor parallelism, whose ranks pass `num_bytes` on.

        Across machines it shares their network cards as other rings do, but reaches less, and waits for each machine.

        >>> from memtrace.forecast.gpus import gpu_named
        >>> links = Links(gpu=gpu_named("h100-80gb"), speed=Speed(bandwidth_share=1.0, across_latency_s=1e-3))
        >>> [round(1e3 * float(links.tensor_parallel(ranks, 450e6)), 2) for ranks in (8, 16)]
        [1.0, 4.25]
        """
        near = ranks <= self.gpu.gpus_per_node
        reached = self.bandwidth(1, ranks) * np.where(near, 1.0, self.speed.across_share)
        waiting = np.where(near, 0.0, self.speed.across_latency_s * ranks / self.gpu.gpus_per_node)
        return num_bytes / reached + self.latency(1, ranks) + waiting

    def latency(self, inner: Size, ranks: Size) -> Size:
        """Return the seconds of a collective whatever its size: one inside a machine, one more a doubling of machines.

        >>> from memtrace.forecast.gpus import gpu_named
        >>> links = Links(gpu=gpu_named("h100-80gb"), speed=Speed(latency_s=10e-6))
        >>> [round(1e6 * float(links.latency(1, ranks))) for ranks in (1, 8, 16, 64)]
        [0, 10, 20, 40]
        """
        machines = np.maximum(1, inner * ranks / self.gpu.gpus_per_node)
        return self.speed.latency_s * (ranks > 1) * (1 + np.log2(machines))

    def collective(self, inner: Size, ranks: Size, num_bytes: Size, messages: Size = 1) -> Size:
        """Return the seconds in which a ring passes `num_bytes` from each rank to the next, in so many messages."""
        return num_bytes / self.bandwidth(inner, ranks) + messages * self.latency(inner, ranks)


OVERLAPS = frozenset({"megatron"})
"""Frameworks that pass parts of a product on while the next is computed (`--tp-comm-overlap`, in NVIDIA's recipes), and
in interleaved schedules what a stage sends while it computes (`overlap_p2p_comm`)."""


def hidden_by_products(framework: str, links: Links) -> float:
    """Return the share of tensor parallelism's collectives, and of interleaved stages' messages, that is hidden.

    The Megatron-LM of 2022, whose published runs are those on A100, hid neither.
    """
    is_later = links.gpu.capability >= (9, 0)
    return links.speed.overlap if is_later and framework in OVERLAPS else 0.0
