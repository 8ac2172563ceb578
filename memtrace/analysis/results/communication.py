"""What analysis says about communication: buckets of replicas, gathers of shards, collectives of a profile.

Bytes and ns are integers; `None` is "not recorded".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducerTime:
    """How DistributedDataParallel timed its own backward passes, as a mean over the iterations that it timed."""

    num_timed: int
    """Backward passes that it timed."""
    backward_ns: int
    """From the end of the forward until all gradients were ready."""
    start_ns: int
    """From the end of the forward until the first all-reduce began."""
    communication_ns: int
    """From there to the end of the last all-reduce."""
    exposed_ns: int
    """Of that, the time after all gradients were ready: nothing of the backward is left to hide it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaResult:
    """One model that DistributedDataParallel replicates, over the recorded steps."""

    replica: int
    """Number of the model in the process, from 0."""
    bucket_bytes: tuple[int, ...]
    """Bytes of gradients in each bucket, in the order of reduction; empty where the reducer did not say."""
    rebuilt: bool
    """Whether these are the buckets after they were put into the order in which gradients become ready."""
    bucket_starts_ns: tuple[int, ...]
    """When each bucket's all-reduce is launched, from the start of its backward, as a mean; empty without a profile."""
    backward_ns: int | None
    """Mean length of these backward passes on the CPU; `None` without a profile."""
    num_steps: int
    """Recorded steps in which it was trained."""
    num_backwards: int
    """Micro-batches in them that had a backward."""
    num_reductions: int
    """Of these, those that reduced gradients."""
    num_needless: int
    """Of these, those that the reduction at the end of the same step made needless."""
    unused_bytes: int | None
    """Bytes of parameters that got no gradient in the first iteration; `None` unless it was looked for."""
    time: ReducerTime | None
    """What its own timers say; `None` where there are none."""

    @property
    def total_bytes(self) -> int:
        """Bytes that one reduction moves: all buckets."""
        return sum(self.bucket_bytes)

    @property
    def needless_bytes(self) -> int:
        """Bytes that were reduced needlessly in the recorded steps."""
        return self.num_needless * self.total_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardGroup:
    """One group of parameters that FSDP2 gathers and reduces together, over the recorded steps."""

    name: str
    """Path of its module; "the root" for the rest."""
    gather_bytes: int | None
    """Bytes of the gathered parameters, padding included; `None` where none was seen."""
    num_gathers: int
    """All-gathers of its parameters."""
    scatter_bytes: int | None
    """Bytes of the gradients that a reduce-scatter takes in, padding included; `None` where none was seen."""
    num_scatters: int
    """Reduce-scatters of its gradients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveBytes:
    """The communication kernels of one collective in one process group, as the profile describes them."""

    name: str
    """As torch names it: allreduce, _allgather_base, _reduce_scatter_base."""
    group: str | None
    """Process group."""
    group_size: int | None
    """Ranks in it."""
    dtype: str | None
    """As "bfloat16"; `None` where the profile does not say."""
    num_kernels: int
    """Kernels of it."""
    input_bytes: int | None
    """Bytes that this rank put in, in all."""
    output_bytes: int | None
    """Bytes that it got out, in all."""
    time_ns: int
    """Sum of the kernels' durations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommunicationResult:
    """What one rank exchanges with others."""

    replicas: tuple[ReplicaResult, ...]
    """One entry a model that is replicated."""
    shard_groups: tuple[ShardGroup, ...]
    """In the order in which they were first gathered."""
    num_shard_steps: int
    """Recorded steps in which they were."""
    collectives: tuple[CollectiveBytes, ...]
    """The longest first."""
