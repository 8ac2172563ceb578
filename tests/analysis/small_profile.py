"""Profiles in a few lines: activities of the GPU with the calls that launch them, steps and waits. Times in µs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from memtrace.store.columns import ColumnTable
from memtrace.store.kineto.profile import read_profile
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import rank_trace

Event = dict[str, Any]


class Profile:
    """The events of a profile; the calls that add some return the profile."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, category: str, name: str, start: float, end: float, **args: Any) -> Profile:
        """Add any activity."""
        one = {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": 1, "ts": start, "dur": end - start}
        self.events.append({**one, "args": args})
        return self

    def gpu(
        self,
        start: float,
        end: float,
        *,
        name: str = "gemm",
        kind: str = "kernel",
        launch: float | None = None,
        **args: Any,
    ) -> Profile:
        """Add work on the GPU and the call that launched it, by itself at its start."""
        correlation, at = len(self.events) + 1, start if launch is None else launch
        self.add("cuda_runtime", "cudaLaunchKernel", at, at + 0.5, correlation=correlation)
        return self.add(kind, name, start, end, **{"device": 0, "stream": 7, "correlation": correlation, **args})

    def communication(self, start: float, end: float, **more: Any) -> Profile:
        """Add an all-reduce on a stream of its own."""
        return self.gpu(start, end, **{"name": "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", "stream": 20, **more})

    def copy(self, start: float, end: float, **more: Any) -> Profile:
        """Add a copy of memory."""
        return self.gpu(start, end, name="Memcpy HtoD", kind="gpu_memcpy", **more)

    def step(self, number: int, start: float, end: float) -> Profile:
        """Add a step."""
        return self.add("user_annotation", f"ProfilerStep#{number}", start, end)

    def rank(self) -> RankTrace:
        """Return the profile as memtrace reads it."""
        return read_profile({"traceEvents": self.events}, where="small")

    def recorded(self, **tables: Sequence[Mapping[str, Any]]) -> RankTrace:
        """Return a recording of memtrace that holds the profile beside some tables; their times are in ns."""
        kernels = self.rank()
        around = rank_trace(**tables)
        # Texts are told by their place: those of the profile go behind.
        shift, table = len(around.strings), kernels.table("kernels")
        columns = dict(table.columns)
        columns |= {name: columns[name] + shift for name in ("name", "kind")}
        joined = {**around.tables, "kernels": ColumnTable(table.table, columns)}
        return dataclasses.replace(around, strings=(*around.strings, *kernels.strings), tables=joined)
