"""Allocation events of an accelerator (CUDA, HIP, XPU) from torch's own memory history, dumped as torch writes it.

Nothing here initialises the accelerator: all calls wait in torch's queue of lazy calls until the program does. A dump
is the snapshot pickle itself; `launch` translates it later, so that the user's process does as little as possible.
"""

from __future__ import annotations

import contextlib
import inspect
import pickle
from collections.abc import Callable
from typing import Any

from memtrace.hooks.parts.as_imported import system
from memtrace.hooks.parts.chunk import EventBatch
from memtrace.hooks.parts.own_file import open_private

SOURCE = "torch_snapshot"

# The newest protocol that every reader of snapshots takes (torch's own viewer refuses 5).
_PICKLE_PROTOCOL = 4
_MIN_RING_ENTRIES = 20_000


class HistorySource:
    """Drives `torch.<kind>.memory._record_memory_history` and writes its snapshots."""

    name = SOURCE

    def __init__(self, torch: Any, kind: str, *, stacks: str, max_entries: int, on_oom: Callable[[], None]) -> None:
        self._torch = torch
        self._kind = kind
        self._api = getattr(torch, kind)
        self._memory = self._api.memory
        self._record = self._memory._record_memory_history
        self._options: dict[str, Any] = {
            "enabled": "all",
            "context": None if stacks == "none" else "all",
            "stacks": "all" if stacks == "all" else "python",
            # Else torch warns on stderr where another thread than the one that began it switches it off.
            "global_record_annotations": True,
        }
        self._accepted = _parameters(self._record)
        self._max_entries = max_entries
        self._on_oom = on_oom
        self._observed = False
        self.running = False
        """Whether torch's recorder is on, or will be as soon as the program initialises the accelerator."""
        self._began = False

    @property
    def has_begun(self) -> bool:
        """Whether the program has initialised the accelerator, so that there is history."""
        return self._began and self.running

    def start(self, *, max_entries: int | None = None) -> None:
        """Record from the next allocation on, or from the first once the program initialises the accelerator."""
        self.running = True
        if max_entries is not None:
            self._max_entries = max(max_entries, _MIN_RING_ENTRIES)
        self._api._lazy_call(self._begin)

    def _begin(self) -> None:
        # Lazy calls run inside torch's initialisation: nothing may escape into it.
        with contextlib.suppress(Exception):
            if not self.running:
                return
            self._restart()
            self._began = True
            self._observe_oom()

    def _restart(self) -> None:
        options = {**self._options, "max_entries": self._max_entries}
        if "clear_history" in self._accepted:
            options["clear_history"] = True
        else:
            # Before torch 2.8 only switching it off empties the ring.
            self._record(enabled=None)
        self._record(**{name: value for name, value in options.items() if name in self._accepted})

    def _observe_oom(self) -> None:
        attach = getattr(self._torch._C, f"_{self._kind}_attach_out_of_memory_observer", None)
        if attach is not None and not self._observed:
            attach(self._oom)
            self._observed = True

    def _oom(self, *_facts: int) -> None:
        # An exception here would replace the user's out-of-memory error.
        with contextlib.suppress(BaseException):
            if self.running:
                self._on_oom()

    def dump(self, path: str) -> EventBatch:
        """Write the history and the state of the allocator to `path`, whole or not at all. Keeps the history.

        Raises OSError where it cannot be written.
        """
        snapshot = self._memory._snapshot()
        unfinished = f"{path}.tmp"
        try:
            with open_private(unfinished) as file:
                pickle.dump(snapshot, file, protocol=_PICKLE_PROTOCOL)
            system.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):
                system.unlink(unfinished)
            raise
        batch = EventBatch(SOURCE, is_native=True)
        batch.max_entries = self._max_entries
        return batch

    def clear(self) -> None:
        """Empty the history and go on recording."""
        self._restart()

    def stop(self) -> None:
        """Switch torch's recorder off."""
        if self.has_begun:
            self._record(enabled=None)
        self.running = False

    def num_events(self) -> int:
        """Return how many events the allocator has made so far, from its own counters: an upper bound for the ring."""
        stats = self._api.memory_stats()
        allocated, freed = (stats.get(f"allocation.all.{name}", 0) for name in ("allocated", "freed"))
        # An allocation is one event, a free two: requested and completed.
        return int(allocated + 2 * freed)

    @property
    def max_entries(self) -> int:
        """Events that torch's ring holds."""
        return self._max_entries


def _parameters(function: Callable[..., Any]) -> set[str]:
    """Return the names that this torch accepts, so that options are detected and no version is compared."""
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {"enabled", "context", "stacks", "max_entries"}
