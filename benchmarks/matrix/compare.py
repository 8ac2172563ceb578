"""Comparing what memtrace says about a recording with the program's own account of its memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtrace.analysis.device.activations import saved_for_backward
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.analysis.device.owned_bytes import owned_at_step_ends
from memtrace.analysis.device.peak import peak_between
from memtrace.analysis.device.steps import step_results, step_spans
from memtrace.store.trace import RankTrace

OWNED = ("parameter", "buffer", "gradient", "optimizer_state")
FIRST_STEP = 2
"""The first step at whose end everything must be exact."""
MAX_SAVED_PCT = 1.0
MAX_UNKNOWN_PCT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """By how much a recording is off, at worst over its steps and ranks. Signed: more than there was is positive."""

    level: Mapping[str, int]
    """By category, bytes at the end of a step as the report shows them, against the bytes of the storages."""
    storage: Mapping[str, int]
    """By category, bytes of the owned storages."""
    tensor: Mapping[str, int]
    """By category, bytes of the tensors in them: numel × itemsize, without padding."""
    padding: int
    """Bytes of padding that the program has, for the reader: storages less tensors."""
    saved_pct: float
    """Activations that autograd saved at the end of a forward pass, against what `saved_tensors_hooks` counts."""
    beside_pct: float
    """Activations held until backward by something else (an argument of a checkpoint), in percent of the same count."""
    missed_outputs: int
    """Bytes of output and loss that are live but not saved and that are not among the outputs of the report."""
    unknown_pct: float
    """Unknown bytes at the peak of the run, in percent of it."""
    peak_bytes: int

    @property
    def is_exact(self) -> bool:
        """Whether every promise is kept."""
        owned = (*self.level.values(), *self.storage.values(), *self.tensor.values())
        is_close = abs(self.saved_pct) <= MAX_SAVED_PCT and self.unknown_pct <= MAX_UNKNOWN_PCT
        return not any(owned) and is_close and not self.missed_outputs


def compare(rank: RankTrace, owners: Path, saved: Path, *, device: str = "cpu") -> Errors:
    """Return the errors of one rank: its recording, and the two accounts of the same program run bare, on one device.

    Raises:
        RuntimeError: the recording has not the steps or forward passes that the program made.
    """
    history = build_history(rank, device, owns_marks=True)
    account, passes = _read(owners), _read(saved)
    levels, storages, tensors = _levels(history), *_owned(history)
    if not len(levels) == len(storages) == len(account):
        raise RuntimeError(f"{len(account)} steps were made, {len(levels)} recorded, {len(storages)} have owners")
    peak = peak_between(history, 0, history.last_moment)
    return Errors(
        level=_differences(levels, account, "storage"),
        storage=_differences(storages, account, "storage"),
        tensor=_differences(tensors, account, "tensor"),
        padding=max(step[name]["storage"] - step[name]["tensor"] for step in account for name in OWNED),
        **_activation_errors(history, passes),
        unknown_pct=peak.by_category.get("unknown", 0) / (peak.requested_bytes or 1) * 100,
        peak_bytes=peak.requested_bytes or 0,
    )


def worst(errors: Sequence[Errors]) -> Errors:
    """Return the errors of several ranks as one."""
    return Errors(
        level=_worst_by_name([one.level for one in errors]),
        storage=_worst_by_name([one.storage for one in errors]),
        tensor=_worst_by_name([one.tensor for one in errors]),
        padding=max(one.padding for one in errors),
        saved_pct=max((one.saved_pct for one in errors), key=abs),
        beside_pct=max(one.beside_pct for one in errors),
        missed_outputs=max(one.missed_outputs for one in errors),
        unknown_pct=max(one.unknown_pct for one in errors),
        peak_bytes=max(one.peak_bytes for one in errors),
    )


def _levels(history: DeviceHistory) -> list[Mapping[str, int]]:
    steps = step_results(history, step_spans(history))
    return [step.end.by_category for step in steps if step.end is not None]


def _owned(history: DeviceHistory) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    ends = sorted(owned_at_step_ends(history).items())
    of_steps = [found for step, found in ends if step > 0]
    storages = [{one.category: one.storage_bytes for one in found} for found in of_steps]
    return storages, [{one.category: one.tensor_bytes for one in found} for found in of_steps]


def _differences(found: Sequence[Mapping[str, int]], account: Sequence[Mapping[str, Any]], kind: str) -> dict[str, int]:
    pairs = list(zip(found, account, strict=True))[FIRST_STEP - 1 :]
    return {name: _worst(one.get(name, 0) - own[name][kind] for one, own in pairs) for name in OWNED}


def _activation_errors(history: DeviceHistory, passes: Sequence[Mapping[str, int]]) -> dict[str, Any]:
    found = saved_for_backward(history)
    if len(found) != len(passes):
        raise RuntimeError(f"{len(passes)} forward passes were made, {len(found)} recorded")
    pairs = list(zip(found, passes, strict=True))
    exact = ((one.saved_bytes - one.inferred_bytes - own["saved"]) / own["saved"] * 100 for one, own in pairs)
    return {
        "saved_pct": max(exact, key=abs),
        "beside_pct": max(one.inferred_bytes / own["saved"] * 100 for one, own in pairs),
        "missed_outputs": max(max(own["outputs"] - one.output_bytes, 0) for one, own in pairs),
    }


def _worst_by_name(errors: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: _worst(one[name] for one in errors) for name in OWNED}


def _worst(differences: Iterable[int]) -> int:
    return max(differences, key=abs, default=0)


def _read(path: Path) -> list[Any]:
    found: list[Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
