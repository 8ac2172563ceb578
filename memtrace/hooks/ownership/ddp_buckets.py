"""How DistributedDataParallel reduces gradients: the sizes of its buckets, the forwards that synchronize, its timings.

All of it is what DDP says of itself: whether a backward reduces gradients is an attribute, read when the forward
begins; the sizes of buckets, and the times of the iterations that it chose to time, stand in what it logs. Reading that
takes some 70 µs, so it is done at step ends, and seldom after the first steps. Nothing is registered with DDP.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from time import time_ns
from typing import Any

from memtrace.hooks.parts.chunk import Row
from memtrace.schema.records import BUCKET, Record

_NUM_FIRST_READS = 16
_READ_EVERY = 50
"""DDP times its first ten iterations and each hundredth: every timing is read."""


class _Replica:
    """One replicated model, and what is known of it so far."""

    def __init__(self, number: int, model: Any) -> None:
        self.number = number
        self.model: Callable[[], Any] = weakref.ref(model)
        self.sizes: str | None = None
        self.iteration = 0
        self.num_steps = 0
        self.was_synchronized = False


class Replicas:
    """Follows the replicated models of this process."""

    def __init__(
        self, *, write: Callable[[Record], None], on_forward: Callable[[Row], None], on_timing: Callable[[Row], None]
    ) -> None:
        self._write = write
        self._on_forward = on_forward
        self._on_timing = on_timing
        self._replicas: dict[int, _Replica] = {}
        self._num_made = 0

    @property
    def watched(self) -> dict[int, Any]:
        """Identities of the models whose forwards are of interest."""
        return self._replicas

    def models(self) -> list[Any]:
        """Return the models that are still alive."""
        return [model for one in list(self._replicas.values()) if (model := one.model()) is not None]

    def add(self, model: Any, *, step: int) -> None:
        """Follow a model whose reducer exists."""
        known = self._replicas.get(id(model))
        if known is None or known.model() is not model:
            known = self._replicas[id(model)] = _Replica(self._num_made, model)
            self._num_made += 1
        self._describe(known, step)

    def forward(self, model: Any, *, step: int, microbatch: int) -> None:
        """Note that a training forward of a followed model begins."""
        replica = self._replicas.get(id(model))
        if replica is not None and replica.model() is model:
            synchronizes = bool(model.require_backward_grad_sync)
            replica.was_synchronized = replica.was_synchronized or synchronizes
            self._on_forward((time_ns(), step, microbatch, replica.number, synchronizes))

    def step_ended(self, step: int) -> None:
        """Read what the models whose gradients were reduced in the step log about themselves."""
        for key, replica in list(self._replicas.items()):
            if replica.model() is None:
                del self._replicas[key]
            elif replica.was_synchronized:
                replica.was_synchronized = False
                replica.num_steps += 1
                if replica.num_steps <= _NUM_FIRST_READS or replica.num_steps % _READ_EVERY == 0:
                    self._describe(replica, step)

    def _describe(self, replica: _Replica, step: int) -> None:
        read = getattr(replica.model(), "_get_ddp_logging_data", None)
        # Not there in old versions; without a reducer of C++, which alone has a logger, it fails.
        if read is None or getattr(replica.model(), "logger", None) is None:
            return
        logged = read()
        self._write_buckets(replica, logged, step)
        self._write_timing(replica, logged)

    def _write_buckets(self, replica: _Replica, logged: dict[str, Any], step: int) -> None:
        rebuilt = logged.get("rebuilt_bucket_sizes")
        sizes = rebuilt or logged.get("bucket_sizes")
        if not sizes or sizes == replica.sizes:
            return
        replica.sizes = sizes
        indices = logged.get("rebuilt_per_bucket_param_indices", "") if rebuilt else ""
        members = [len(one.split()) for one in indices.split(",")] if indices else []
        now = time_ns()
        for number, size in enumerate(sizes.split(",")):
            self._write(
                {
                    "k": BUCKET,
                    "time_ns": now,
                    "step": step,
                    "replica": replica.number,
                    "bucket": number,
                    "size_bytes": int(size),
                    "num_parameters": members[number] if number < len(members) else None,
                    "rebuilt": bool(rebuilt),
                }
            )

    def _write_timing(self, replica: _Replica, logged: dict[str, Any]) -> None:
        iteration = logged.get("iteration", 0)
        names = ("backward_compute_time_start", "backward_compute_time", "backward_comm_time")
        start_ns, backward_ns, communication_ns = (logged.get(name, 0) for name in names)
        if iteration == replica.iteration or min(start_ns, backward_ns, communication_ns) <= 0:
            return
        replica.iteration = iteration
        overlap_ns = max(logged.get("backward_compute_comm_overlap_time", 0), 0)
        # Later iterations add to the figure of the first in some versions.
        unused = logged.get("unused_parameter_size") if iteration == 1 else None
        self._on_timing((replica.number, iteration, start_ns, backward_ns, communication_ns, overlap_ns, unused))
