"""Puts in place what a prediction on torch's own CUDA code needs beside it. There is no way back."""

from __future__ import annotations

import os
from typing import Any

import torch

from memtrace.hooks.driverless import host
from memtrace.hooks.driverless.known_data import KnownData, largest_unfolded_bytes
from memtrace.hooks.driverless.operators import Operators
from memtrace.hooks.fake.cuda.distributed import start_groups
from memtrace.hooks.fake.cuda.told import Told
from memtrace.hooks.fake.events.assumptions import Assumptions, Warn
from memtrace.hooks.fake.files import safetensors
from memtrace.hooks.fake.files.python_files import Files
from memtrace.hooks.fake.files.scratch import Scratch
from memtrace.hooks.fake.kernels.workspaces import convolution_facts
from memtrace.schema.options import PredictOptions
from memtrace.schema.predicted import COMPILED


class DriverlessDevice:
    """What answers for data, and what it counted. The device itself is that of `memtrace.driverless`."""

    def __init__(self, gpu: PredictOptions, *, warn: Warn) -> None:
        self._gpu = gpu
        caches = [os.environ[name] for name in COMPILED if name in os.environ]
        self._scratch = Scratch(gpu.scratch_dir, left_alone=caches) if gpu.scratch_dir else None
        self._assumptions = Assumptions(warn)
        self._data = KnownData()
        self._told = Told(gpu, self._assumptions, self._data.on_host)
        self._operators = Operators(self._data, self._assumptions)

    def install(self) -> None:
        """Put everything in place. Affects: torch, for the rest of the process.

        Raises:
            RuntimeError: this process has real devices, which a prediction must not train on, or none.
        """
        if not self._data.is_there:
            raise RuntimeError("the stand-ins for NVIDIA's libraries are not loaded (LD_PRELOAD was changed)")
        self._operators.install()
        host.spare_first_values()
        host.step_scaled()
        host.keep_history()
        host.compute_all()
        if self._gpu.world_size > 1:
            start_groups(self._told)
        self._redirect_files()

    def _redirect_files(self) -> None:
        scratch = self._scratch
        if scratch is None:
            return

        def written(path: Any) -> Any:
            return scratch.target(path, copy=False)

        host.redirect_torch_files(scratch.seen, written)
        safetensors.install(scratch.seen, written)
        Files(scratch).install()

    def facts(self) -> dict[str, Any]:
        """Return what torch's allocator counted and no event tells."""
        if not torch.cuda.is_initialized():
            return self._told.facts()
        stats = torch.cuda.memory_stats()
        # A request that failed all the same, and that the program caught, made no room.
        found = self._told.facts() | {
            "num_alloc_retries": max(stats.get("num_alloc_retries", 0) - stats.get("num_ooms", 0), 0)
        }
        unfolded = largest_unfolded_bytes()
        convolutions = self._operators.convolutions
        found |= {} if convolutions is None else convolutions.facts()
        return found | ({"largest_unfolded_bytes": unfolded} if unfolded else {}) | convolution_facts()

    def assumptions(self) -> list[tuple[str, str]]:
        """Return what was taken for granted because no kernel ran: slugs and sentences."""
        found = list(self._assumptions.notes())
        if self._scratch is not None and self._scratch.num_files:
            message = f"files that the program wrote went to a scratch folder and are gone: {self._scratch.num_files}"
            found.append(("predicted-values", message))
        return found
