"""Gradients that lie about during the next forward: the advice says what the same loop needs that drops them."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from memtrace.analysis.advice.case import Case
from memtrace.analysis.advice.gradients import gradients_through_forward
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from tests.analysis.small_trace import Event, event_rows, owner, phase, rank_trace, step, window

Habit = Literal["zeroed in place", "dropped after the forward", "dropped after the step"]
LOSS = 70
"""Bytes that live at the end of a forward only."""


class Loop:
    """Runs layers whose activations are twice as large as their gradients, as torch would; writes down the events."""

    def __init__(self, gradients: list[int], *, habit: Habit, num_steps: int = 3) -> None:
        self.events: list[Event] = []
        self.live: dict[int, int] = {}
        self.peak_bytes = 0
        self.says_so = True
        self.tables: dict[str, list[dict[str, Any]]] = {"steps": [], "phases": [], "owners": []}
        self._next_address = 1
        self._held: dict[int, int] = {}
        self._habit, self._sizes = habit, gradients
        for number in range(1, num_steps + 1):
            self._step(number)

    @property
    def now(self) -> int:
        """A time after the last event and before the next."""
        return 10 * len(self.events) + 5

    def _alloc(self, size: int) -> int:
        address, self._next_address = self._next_address, self._next_address + 1
        self.live[address] = size
        self.events.append(("alloc", address, size))
        self.peak_bytes = max(self.peak_bytes, sum(self.live.values()))
        return address

    def _free(self, address: int) -> None:
        self.events.append(("free_completed", address, self.live.pop(address)))

    def _drop(self) -> None:
        for address in self._held.values():
            self._free(address)
        self._held.clear()

    def _step(self, number: int) -> None:
        began = self.now
        if self._habit == "dropped after the step":
            self._drop()
        forward = self.now
        activations = [self._alloc(2 * size) for size in self._sizes]
        self._free(self._alloc(LOSS))
        self.tables["phases"].append(phase("forward", number, forward, self.now))
        if self._habit == "dropped after the forward":
            self._drop()
        backward = self.now
        for layer in reversed(range(len(self._sizes))):
            made = self._alloc(self._sizes[layer])
            self._free(activations[layer])
            if layer in self._held:
                self._free(made)
            else:
                self._held[layer] = made
        self.tables["phases"].append(phase("backward", number, backward, self.now))
        held = self._held.values()
        self.tables["owners"] += [owner(self.now, one, self.live[one], "gradient") | {"step": number} for one in held]
        self._free(self._alloc(1))
        self.tables["steps"].append(step(number, began, self.now))

    def history(self) -> DeviceHistory:
        """Return what memtrace makes of it."""
        windows = [window(0, len(self.events), initial=0)]
        rank = rank_trace(
            header={"keeps_gradients": self._habit == "zeroed in place" and self.says_so},
            events=event_rows(self.events),
            windows=windows,
            **self.tables,
        )
        return build_history(rank, "cpu", owns_marks=True)


@pytest.mark.parametrize("habit", ["zeroed in place", "dropped after the forward"])
@pytest.mark.parametrize("gradients", [[50], [50, 50, 50], [30, 50, 30, 80], [80, 50, 30, 50]])
def test_the_new_peak_is_that_of_the_loop_that_drops_them_after_the_step(gradients: list[int], habit: Habit) -> None:
    loop, better = Loop(gradients, habit=habit), Loop(gradients, habit="dropped after the step")
    case = Case(loop.history())
    found = gradients_through_forward(case)
    assert case.peak_bytes == loop.peak_bytes
    assert found is not None
    assert found.new_peak_bytes == better.peak_bytes
    assert found.saves_bytes == loop.peak_bytes - better.peak_bytes
    # At the peak no gradient has been made again: it is that of the end of the forward, or of the first temporary.
    assert found.evidence == {
        "gradients_held_at_peak_bytes": sum(gradients),
        "kept_from_step_to_step": habit == "zeroed in place",
        "zeroed_in_place": habit == "zeroed in place",
    }
    assert ("set_to_none=True" in found.change) == (habit == "zeroed in place")


@pytest.mark.parametrize("gradients", [[50], [30, 50, 30, 80]])
def test_a_loop_that_drops_them_after_the_step_gets_no_advice(gradients: list[int]) -> None:
    assert gradients_through_forward(Case(Loop(gradients, habit="dropped after the step").history())) is None


def test_one_step_holds_nothing_of_a_step_before() -> None:
    assert gradients_through_forward(Case(Loop([50], habit="zeroed in place", num_steps=1).history())) is None


def test_gradients_that_nobody_was_seen_to_zero_are_not_said_to_be() -> None:
    loop = Loop([50, 30], habit="zeroed in place")
    loop.says_so = False
    found = gradients_through_forward(Case(loop.history()))
    assert found is not None
    assert (found.evidence["kept_from_step_to_step"], found.evidence["zeroed_in_place"]) == (True, False)
    assert "set_to_none" not in found.change
