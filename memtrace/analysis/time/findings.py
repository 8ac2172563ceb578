"""Advice about time: what each step could be shorter by, in ns of this very profile.

In: a rank and where its time goes. Out: `Finding`s. Figures are a mean over the profiled steps; without steps, of the
whole profile. Advice for less than a fiftieth of the step is not given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memtrace.analysis.results.report import Finding
from memtrace.analysis.results.time import TimeResult, TimeSplit
from memtrace.analysis.time.early_reduces import early_reduces
from memtrace.analysis.time.stalls import num_device_frees
from memtrace.schema.names import Source
from memtrace.store.trace import RankTrace

_MIN_SHARE = 50
"""Advice is given from a 50th of the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mean:
    """Figures of the profiled steps, or of the whole profile as if it were one."""

    splits: tuple[TimeSplit, ...]
    has_steps: bool

    @property
    def window_ns(self) -> int:
        return self.of("window_ns")

    @property
    def unit(self) -> str:
        return "of each step" if self.has_steps else "of the profile"

    def of(self, name: str) -> int:
        """Return the mean of a figure; what was not seen is nothing."""
        return sum(getattr(one, name) or 0 for one in self.splits) // len(self.splits)

    def counts(self, lost_ns: int) -> bool:
        """Return whether a time is worth advice."""
        return lost_ns > 0 and lost_ns * _MIN_SHARE >= self.window_ns

    def share(self, lost_ns: int) -> str:
        """Return a time as a share of the step."""
        return f"{100 * lost_ns / self.window_ns:.0f} %"

    def evidence(self) -> dict[str, Any]:
        return {"window_ns": self.window_ns, "num_steps": len(self.splits) if self.has_steps else None}


def time_findings(rank: RankTrace, time: TimeResult) -> tuple[Finding, ...]:
    """Return what would make the steps of a rank shorter."""
    mean = _Mean(splits=time.steps or (time.whole,), has_steps=bool(time.steps))
    found = (_no_sync(rank, mean), _data_stall(rank, mean), _allocator_stall(rank, mean), _exposed(rank, time, mean))
    return tuple(one for one in found if one is not None)


def _exposed(rank: RankTrace, time: TimeResult, mean: _Mean) -> Finding | None:
    """Return the advice to hide communication that runs while nothing is computed."""
    exposed_ns = mean.of("exposed_ns")
    if not mean.counts(exposed_ns):
        return None
    return Finding(
        slug="exposed-communication",
        severity="info",
        title=f"Nothing is computed during communication that takes {mean.share(exposed_ns)} {mean.unit}",
        evidence={
            "exposed_ns": exposed_ns,
            "communication_ns": mean.of("communication_ns"),
            "hidden_ns": mean.of("hidden_ns"),
            **mean.evidence(),
            "mostly": time.collectives[0].name,
        },
        change="Start communication earlier or compute beside it: DistributedDataParallel overlaps buckets with "
        "backward (try other sizes with bucket_cap_mb), FSDP2 prefetches with set_modules_to_forward_prefetch; "
        "all-to-alls can go on a stream of their own. Waiting for slower ranks counts as communication too: "
        "compare the ranks.",
        cost="What is under way holds buffers: a bucket or a gathered layer more at the peak.",
        saves_bytes=None,
        saves_ns=exposed_ns,
        new_peak_bytes=None,
        rank=rank.rank,
        where=None,
    )


def _data_stall(rank: RankTrace, mean: _Mean) -> Finding | None:
    """Return the advice to load data in time."""
    stall_ns = mean.of("data_stall_ns")
    if not mean.counts(stall_ns):
        return None
    return Finding(
        slug="data-stall",
        severity="warning",
        title=f"The GPU waits for the data loader {mean.share(stall_ns)} {mean.unit}",
        evidence={"data_stall_ns": stall_ns, "data_ns": mean.of("data_ns"), **mean.evidence()},
        change="Give the DataLoader num_workers (a few a GPU), pin_memory=True and a larger prefetch_factor, so that "
        "the next batch is ready when the step ends; decode or tokenize beforehand if the workers cannot keep up.",
        cost="Host memory and CPU cores for the workers; each holds prefetch_factor batches.",
        saves_bytes=None,
        saves_ns=stall_ns,
        new_peak_bytes=None,
        rank=rank.rank,
        where=None,
    )


def _allocator_stall(rank: RankTrace, mean: _Mean) -> Finding | None:
    """Return the advice to keep memory instead of taking it from the device anew."""
    stall_ns = mean.of("allocator_stall_ns")
    if not mean.counts(stall_ns):
        return None
    return Finding(
        slug="allocator-stall",
        severity="warning",
        title=f"The GPU waits for memory to be taken from the device {mean.share(stall_ns)} {mean.unit}",
        evidence={
            "allocator_stall_ns": stall_ns,
            "allocator_ns": mean.of("allocator_ns"),
            "num_device_frees": num_device_frees(rank),
            **mean.evidence(),
        },
        change="Take torch.cuda.empty_cache() out of the loop and leave the allocator some room: it gives memory back "
        "and tries again when the device is full. expandable_segments:True in PYTORCH_CUDA_ALLOC_CONF lets segments "
        "grow. Where only the first step is profiled, profile a later one: the first fills the cache.",
        cost="Reserved memory stays as high as its highest moment.",
        saves_bytes=None,
        saves_ns=stall_ns,
        new_peak_bytes=None,
        rank=rank.rank,
        where=None,
    )


def _no_sync(rank: RankTrace, mean: _Mean) -> Finding | None:
    """Return the advice to reduce gradients once a step, where micro-batches before the last reduce theirs.

    Where hooks saw which do, `communication_findings` knows better.
    """
    if len(rank.table("replica_forwards")):
        return None
    early = early_reduces(rank, {one.step for one in mean.splits if one.step is not None})
    exposed_ns = 0 if early is None else early.exposed_ns // len(mean.splits)
    if early is None or not mean.counts(exposed_ns):
        return None
    return Finding(
        slug="no-sync",
        severity="warning",
        title=f"Gradients are reduced in micro-batches before the last: {mean.share(exposed_ns)} {mean.unit}",
        evidence={
            "exposed_ns": exposed_ns,
            "num_early_all_reduces": early.num_early,
            "num_last_all_reduces": early.num_last,
            **mean.evidence(),
            "rests_on_inference": rank.source != Source.RECORDED.value,
        },
        change="Run forward and backward of every micro-batch but the last under `with model.no_sync():`, so that "
        "gradients are reduced once a step.",
        cost="None for DistributedDataParallel, whose gradients are whole on every rank anyway.",
        saves_bytes=None,
        saves_ns=exposed_ns,
        new_peak_bytes=None,
        rank=rank.rank,
        where=None,
    )
