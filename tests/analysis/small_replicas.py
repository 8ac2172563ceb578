"""Rows of recordings of replicated models, for tests: their buckets, forwards and timings."""

from __future__ import annotations

from typing import Any


def bucket(number: int, size: int, *, time: int = 1, rebuilt: bool = False, replica: int = 0) -> dict[str, Any]:
    """Return a row of the buckets table."""
    row = {"time_ns": time, "step": 1, "replica": replica, "bucket": number, "size_bytes": size}
    return row | {"num_parameters": None, "rebuilt": rebuilt}


def forward(time: int, step: int, microbatch: int, *, synchronizes: bool = True, replica: int = 0) -> dict[str, Any]:
    """Return a row of the replica_forwards table."""
    row = {"time_ns": time, "step": step, "microbatch": microbatch, "replica": replica}
    return row | {"synchronizes": synchronizes}


def timing(
    iteration: int, *, backward: int, communication: int, overlap: int, unused: int | None = None
) -> dict[str, Any]:
    """Return a row of the reducer_timings table."""
    row = {"replica": 0, "iteration": iteration, "backward_start_ns": iteration, "backward_ns": backward}
    return row | {"communication_ns": communication, "overlap_ns": overlap, "unused_bytes": unused}
