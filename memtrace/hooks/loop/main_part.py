"""Records of the main part: header, facts, steps, optimizers, warnings, end."""

from __future__ import annotations

import json
import sys
from time import time_ns
from typing import Any

from memtrace.hooks.loop.steps import StepEnd
from memtrace.hooks.parts import who_am_i as ranks
from memtrace.hooks.parts.spool import Spool
from memtrace.hooks.sources import device
from memtrace.hooks.sources.choose import Sources
from memtrace.hooks.sources.high_water import HighWaterMark
from memtrace.schema import records
from memtrace.schema.names import Source
from memtrace.schema.version import PART_FORMAT, TRACE_VERSION


class Writer:
    """Writes records into the spool; notes of one kind are written once."""

    def __init__(self, spool: Spool, *, redact: bool) -> None:
        self._spool = spool
        self._redact = redact
        self._noted: set[str] = set()
        self._unstepped: list[str] = []
        self._num_followers = 0
        self._rank: int | None = None
        self.sources: Sources | None = None
        """Set once the sources exist; until then only warnings are written."""

    def header(self, *, source: Source, facts: dict[str, Any], start_ns: int, sources: dict[str, str | None]) -> None:
        """Write the header: who this process is and what is recorded."""
        self._rank = facts["rank"]
        main = sys.modules.get("__main__")
        script = getattr(main, "__file__", None) or (sys.argv[0] if sys.argv else None)
        self._spool.write(
            {
                "k": records.HEADER,
                "format": PART_FORMAT,
                "version": TRACE_VERSION,
                "source": str(source),
                **facts,
                "host": None if self._redact else facts["host"],
                "start_ns": start_ns,
                "sources": sources,
                "versions": ranks.version_facts(),
                "environment": ranks.environment_facts(self._redact),
                "original_path": None if self._redact else script,
            }
        )

    def facts(self, **fields: Any) -> None:
        """Write header fields that became known only now."""
        self._spool.write({"k": records.FACTS, **fields})

    def warn(self, slug: str, message: str) -> None:
        """Write a warning: something is not seen, or a hook failed."""
        self._spool.write({"k": records.WARNING, "slug": slug, "message": message, "count": 1})

    def note(self, slug: str, message: str) -> None:
        """Write a warning the first time only."""
        if self._first("warning " + slug):
            self.warn(slug, message)

    def note_lost(self, step: int) -> None:
        """Write, once a step, that events of it were dropped because there were too many."""
        message = f"step {step} made more events than --max-entries: of the rest only the last are kept"
        if self._first(f"lost {step}"):
            self._spool.write({"k": records.LOST, "slug": "events-lost", "message": message, "step": step})

    def note_autocast(self, torch: Any) -> None:
        """Write the dtypes under autocast, each once."""
        for kind in ("cuda", "cpu", "xpu"):
            if _autocast_enabled(torch, kind):
                name = str(torch.get_autocast_dtype(kind)).removeprefix("torch.")
                if self._first("autocast " + name):
                    self.facts(autocast_dtypes=sorted(self._names("autocast ")))

    def note_scaler(self) -> None:
        """Write that a gradient scaler is used."""
        if self._first("scaler"):
            self.facts(uses_grad_scaler=True)

    def note_kept_gradients(self) -> None:
        """Write that `zero_grad` keeps gradients and sets them to zero."""
        if self._first("kept gradients"):
            self.facts(keeps_gradients=True)

    def note_unstepped(self, names: list[str]) -> None:
        """Write which parameters have a gradient that no optimizer steps, when that changes."""
        if names != self._unstepped:
            self._unstepped = names
            self.facts(unstepped_parameters=names)

    def note_followers(self, names: set[str]) -> None:
        """Write which parameters follow others by the program's hand, when more are known to."""
        if len(names) > self._num_followers:
            self._num_followers = len(names)
            self.facts(following_parameters=sorted(names))

    def note_distributed(self, torch: Any) -> None:
        """Write rank and world size where the environment did not tell them and a process group does."""
        distributed = getattr(torch, "distributed", None)
        if self._rank is not None or distributed is None or not distributed.is_available():
            return
        if distributed.is_initialized():
            self._rank = distributed.get_rank()
            self.facts(rank=self._rank, world_size=distributed.get_world_size())

    def describe_optimizer(self, optimizer: Any) -> None:
        """Write class, groups and options of an optimizer, once."""
        if not self._first(f"optimizer {id(optimizer)}"):
            return
        for number, group in enumerate(optimizer.param_groups):
            options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
            self._spool.write(
                {
                    "k": records.OPTIMIZER,
                    "class_name": type(optimizer).__name__,
                    "group": number,
                    "num_parameters": sum(parameter.numel() for parameter in group["params"]),
                    "options": json.dumps(options, sort_keys=True, default=_option_text),
                }
            )

    def bucket(self, record: records.Record) -> None:
        """Write one bucket of a replicated model; steps may leave the rolling window, buckets stay."""
        self._spool.write(record)

    def state(self) -> dict[str, int | None]:
        """Return what device and host say now."""
        totals = self.sources.totals() if self.sources is not None else {}
        return {**totals, "host_rss_bytes": device.host_rss_bytes()}

    def step(
        self,
        *,
        step: int,
        start_ns: int,
        end: StepEnd,
        recorded: bool,
        num_microbatches: int,
        recording_ns: int,
        state: dict[str, int | None] | None = None,
        next_from: tuple[int, int] | None = None,
    ) -> None:
        """Write a step with what device and host said at its end, which is now unless `state` tells it.

        `next_from` says from which time and micro-batch on what was noted in this step is of the next one.
        """
        self._spool.write(
            {
                "k": records.STEP,
                "step": step,
                "start_ns": start_ns,
                "end_ns": end.end_ns,
                "skipped": end.skipped,
                "recorded": recorded,
                "num_microbatches": num_microbatches,
                "recording_ns": recording_ns,
                **(self.state() if state is None else state),
                **({} if next_from is None else dict(zip(records.NEXT_FROM, next_from, strict=True))),
            }
        )
        for record in self.sources.new_devices() if self.sources is not None else ():
            self._spool.write({"k": records.DEVICE, **record})

    def mark(self, step: int, mark: HighWaterMark) -> None:
        """Write the high-water marks of a step, which are known once its events have been taken."""
        if any(one is not None for one in mark):
            self._spool.write(
                {
                    "k": records.STEP,
                    "step": step,
                    "high_water_bytes": mark.num_bytes,
                    "peak_host_rss_bytes": mark.host_rss_bytes,
                }
            )

    def end(self) -> None:
        """Write that the recording ended in order, and close."""
        peak = device.peak_host_rss_bytes()
        self._spool.write({"k": records.END, "end_ns": time_ns(), "complete": True, "peak_host_rss_bytes": peak})
        self._spool.close()

    def flush(self) -> None:
        """Make what was written so far survive the process."""
        self._spool.flush()

    def _first(self, what: str) -> bool:
        if what in self._noted:
            return False
        self._noted.add(what)
        return True

    def _names(self, start: str) -> list[str]:
        return [what.removeprefix(start) for what in self._noted if what.startswith(start)]


def _autocast_enabled(torch: Any, kind: str) -> bool:
    try:
        return bool(torch.is_autocast_enabled(kind))
    except (TypeError, RuntimeError):
        # Before torch 2.4 it takes no device.
        return False


def _option_text(value: Any) -> str:
    """Return an option that JSON does not know as text; a tensor only by its kind, since reading it would wait."""
    return type(value).__name__ if hasattr(value, "untyped_storage") else str(value)
