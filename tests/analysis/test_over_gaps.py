"""A step that was not recorded changes nothing of what is known of those after it."""

from __future__ import annotations

from typing import Any

import pytest

from memtrace.analysis.advice.case import Case
from memtrace.analysis.advice.gradients import gradients_through_forward
from memtrace.analysis.advice.outputs import outputs_of_the_pass_before
from memtrace.analysis.attribution.attribute import CATEGORIES, ROLES
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from tests.analysis.small_trace import Event, event_rows, initial_block, owner, phase, rank_trace, saved, step, window

_WEIGHT, _LOGITS, _STATES = 40, 60, (30, 30, 20)


class Loop:
    """A loop of a few layers, its gradients zeroed in place or its outputs kept until the next forward is over."""

    def __init__(self, num_steps: int, *, left_out: int | None, keeps_gradients: bool = False) -> None:
        self.events: list[Event] = []
        self.live: dict[int, int] = {}
        self.tables: dict[str, list[dict[str, Any]]] = {"steps": [], "phases": [], "owners": [], "saved": []}
        self.windows: list[tuple[int, int]] = []
        self.blocks: list[dict[str, Any]] = []
        self._keeps_gradients = keeps_gradients
        self._held: list[int] = []
        self._gradient: int | None = None
        self._weight = self._alloc(_WEIGHT)
        first, begins = 0, list[int]()
        for number in range(1, num_steps + 1):
            if number == left_out:
                self.windows.append((first, len(self.events)))
                begins = [len(self.events)]
            self._step(number, recorded=number != left_out)
            if number == left_out:
                # Nothing of it but that it was, and what is live after it.
                del self.events[begins[0] :]
                first = len(self.events)
                self.blocks = [initial_block(address, size, window=1) for address, size in self.live.items()]
        self.windows.append((first, len(self.events)))

    @property
    def now(self) -> int:
        """A time after the last event and before the next."""
        return 10 * len(self.events) + 5

    def _alloc(self, size: int) -> int:
        address = 1 + max((one[1] or 0 for one in self.events), default=0)
        address = max(address, 1 + max(self.live, default=0))
        self.live[address] = size
        self.events.append(("alloc", address, size))
        return address

    def _free(self, address: int) -> None:
        self.events.append(("free_completed", address, self.live.pop(address)))

    def _step(self, number: int, *, recorded: bool) -> None:
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in self.tables}
        began = forward = self.now
        states = [self._alloc(size) for size in _STATES]
        logits = self._alloc(_LOGITS)
        for address in self._held:
            self._free(address)
        self._held = [] if self._keeps_gradients else [*states, logits]
        rows["phases"].append(phase("forward", number, forward, self.now))
        backward = self.now
        kept = [*states, logits]
        rows["saved"] += [saved(backward, one, self.live[one]) | {"step": number} for one in states]
        made = self._alloc(_WEIGHT)
        if self._keeps_gradients:
            for address in kept:
                self._free(address)
        if self._gradient is not None:
            self._free(made if self._keeps_gradients else self._gradient)
        self._gradient = self._gradient if self._keeps_gradients and self._gradient is not None else made
        rows["phases"].append(phase("backward", number, backward, self.now))
        seen = {"parameter": self._weight, "gradient": self._gradient}
        rows["owners"] += [owner(self.now, one, _WEIGHT, name) | {"step": number} for name, one in seen.items()]
        self._free(self._alloc(1))
        rows["steps"].append(step(number, began, self.now, recorded=recorded))
        for name, found in rows.items():
            if recorded:
                self.tables[name] += found
        if not recorded:
            self.tables["steps"].append(step(number, began, began, recorded=False))

    def history(self) -> DeviceHistory:
        """Return what memtrace makes of it."""
        windows = [window(first, stop - first, initial=0) for first, stop in self.windows]
        rank = rank_trace(
            header={"keeps_gradients": self._keeps_gradients},
            events=event_rows(self.events),
            windows=windows,
            initial_blocks=self.blocks,
            **self.tables,
        )
        return build_history(rank, "cpu", owns_marks=True)


@pytest.mark.parametrize("left_out", [3, 4])
def test_what_is_live_after_a_gap_is_what_it_is_without(left_out: int) -> None:
    def first_moment_of(history: DeviceHistory) -> dict[str, int]:
        steps = history.rank.table("steps")
        moment = history.moments.at_time(int(steps["start_ns"][steps["step"] == left_out + 1][0])) + 1
        live, found = history.lifetimes.live_at(moment), dict[str, int]()
        for row in live.tolist():
            kind = CATEGORIES[history.attribution.category[row]].value, ROLES[history.attribution.role[row]].value
            name = " ".join(kind)
            found[name] = found.get(name, 0) + int(history.lifetimes.size_bytes[row])
        return found

    whole = first_moment_of(Loop(6, left_out=None).history())
    assert whole == first_moment_of(Loop(6, left_out=left_out).history())
    assert not any(name.startswith("unknown") for name in whole)


@pytest.mark.parametrize("left_out", [3, 4])
def test_outputs_of_the_step_before_are_told_over_a_gap(left_out: int) -> None:
    whole = outputs_of_the_pass_before(Case(Loop(6, left_out=None).history()))
    found = outputs_of_the_pass_before(Case(Loop(6, left_out=left_out).history()))
    assert whole is not None
    assert found is not None
    assert (found.saves_bytes, found.new_peak_bytes) == (whole.saves_bytes, whole.new_peak_bytes)


@pytest.mark.parametrize("left_out", [3, 4])
def test_gradients_that_are_kept_are_told_over_a_gap(left_out: int) -> None:
    whole = gradients_through_forward(Case(Loop(6, left_out=None, keeps_gradients=True).history()))
    found = gradients_through_forward(Case(Loop(6, left_out=left_out, keeps_gradients=True).history()))
    assert whole is not None
    assert found is not None
    assert (found.saves_bytes, found.new_peak_bytes) == (whole.saves_bytes, whole.new_peak_bytes)


def test_what_no_step_is_seen_to_leave_stays_unknown_after_a_gap() -> None:
    loop = Loop(6, left_out=4)
    # One more of a size than any other step leaves: which of them is which is not told.
    loop.blocks.append(initial_block(10**6, _LOGITS, window=1))
    at = loop.windows[1][0] + 6
    loop.events.insert(at, ("free_completed", 10**6, _LOGITS))
    loop.windows[1] = (loop.windows[1][0], len(loop.events))
    history = loop.history()
    chosen = history.lifetimes.is_initial & (history.lifetimes.size_bytes == _LOGITS)
    assert {CATEGORIES[code].value for code in history.attribution.category[chosen]} == {"unknown"}
