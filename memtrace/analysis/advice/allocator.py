"""The allocator's settings: growing segments, where reserved memory lies idle and the model says that they help.

In: `Case`. Out: a `Finding`. The new peak is one of reserved bytes, as the model of the allocator makes them of the
same requests.
"""

from __future__ import annotations

from memtrace.allocator.settings import parse_settings
from memtrace.allocator.whatif import Change, read_recording, what_if
from memtrace.analysis.advice.case import WORTH_SAYING_SHARE, Case
from memtrace.analysis.device.device_history import DeviceHistory
from memtrace.analysis.results.report import Finding
from memtrace.schema.names import Action

_SETTING = "expandable_segments:True"
_WORTH_TRYING_SHARE = 0.05
MAX_REPLAYED_EVENTS = 200_000
"""Beyond this a report would take seconds longer; `memtrace whatif --advise` takes any length."""


def left_untried(history: DeviceHistory) -> bool:
    """Return whether the setting might help and was not put through the model, because the history is too long."""
    return len(history.moments.rows) > MAX_REPLAYED_EVENTS and _reserves_idle_memory(history)


def expandable_segments(case: Case) -> Finding | None:
    """Return the advice to set expandable segments, where reserved memory lies idle and the model says they help."""
    history = case.history
    max_reserved, peak_allocated = _most(history)
    if not _reserves_idle_memory(history) or left_untried(history):
        return None
    recording = read_recording(history.rank, history.device)
    if recording.settings.expandable_segments:
        return None
    rows = what_if(recording, [Change(name=_SETTING, settings=parse_settings(_SETTING))]).rows
    # With blocks in use before the history, the row before the last starts as tidily as the last: compare with that.
    reference, changed = rows[-2], rows[-1]
    saves_bytes = reference.max_reserved_bytes - changed.max_reserved_bytes
    if saves_bytes < WORTH_SAYING_SHARE * max_reserved:
        return None
    return Finding(
        slug="expandable-segments",
        severity="warning" if history.moments.is_action(history.rank, Action.OOM).any() else "info",
        title="Reserved memory lies idle between blocks: expandable segments would reserve less",
        evidence={
            "max_reserved_bytes": max_reserved,
            "peak_allocated_bytes": peak_allocated,
            "idle_bytes": max_reserved - peak_allocated,
            "modelled_reserved_bytes": changed.max_reserved_bytes,
            "allocations_reproduced": recording.replay.fidelity.allocations_matched,
        },
        change=f"Set PYTORCH_ALLOC_CONF={_SETTING} before the program starts "
        "(before torch 2.10 the variable is PYTORCH_CUDA_ALLOC_CONF).",
        cost="None in compute; it needs a driver with virtual memory management.",
        saves_bytes=saves_bytes,
        saves_ns=None,
        new_peak_bytes=changed.max_reserved_bytes,
        rank=history.rank.rank,
        where=None,
    )


def _reserves_idle_memory(history: DeviceHistory) -> bool:
    """Return whether much of what is reserved is never allocated; false where a replay does not tell."""
    max_reserved, peak_allocated = _most(history)
    return history.replayed is not None and max_reserved - peak_allocated > _WORTH_TRYING_SHARE * max_reserved


def _most(history: DeviceHistory) -> tuple[int, int]:
    """Return the most reserved and the most allocated bytes; zeros where a replay does not tell."""
    allocated, reserved = history.levels.allocated, history.levels.reserved
    return (0, 0) if allocated is None or reserved is None else (int(reserved.max()), int(allocated.max()))
