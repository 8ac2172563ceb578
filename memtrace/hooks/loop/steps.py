"""Where a step ends: told from optimizer steps, scaler skips, and the set of optimizers that take part.

One step is one optimizer step. Where a loop has several optimizers (a GAN, a critic and an actor, one optimizer a
parameter), those that step one after the other make one step together, each of them once, at whatever rhythm:

    critic  critic actor  critic  critic actor        steps 1, 2, 3, 4
    └─ 1 ─┘ └─── 2 ─────┘ └─ 3 ─┘ └─── 4 ─────┘

A step that every optimizer has taken part in has ended. Of any other it is known only later: it ended when an optimizer
is about to step again, or a batch is drawn, and it ended then at the last optimizer step before. So after an optimizer
step, before the program goes on, the tracker says that the step may end here: what may have to be told of its end must
be looked at now. It goes on if one of the other optimizers steps, unless that was made only now, after one that ends
steps alone: the next fold of a validation begins, while the optimizers of those before are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class StepEnd:
    """The end of a step, perhaps known only later."""

    end_ns: int | None
    """Unix time at which the last optimizer step of the step ended; `None` if it has not."""
    skipped: bool
    """Whether a gradient scaler skipped every optimizer step in it."""
    is_late: bool = False
    """Whether the next step is under way: it began when `on_possible_end` was last called."""


class StepTracker:
    """Decides when a step has ended. Optimizers are known by `id`; the caller says when one is gone."""

    def __init__(
        self,
        on_end: Callable[[StepEnd], None],
        *,
        on_possible_end: Callable[[], None] = lambda: None,
        on_going_on: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_going_on` is called where a possible end was none."""
        self._on_end = on_end
        self._on_possible_end = on_possible_end
        self._on_going_on = on_going_on
        self._known: set[int] = set()
        self._stepped: dict[int, bool] = {}
        self._last_ns = 0
        self._may_have_ended = False
        self._is_stepping = False
        self._ends_with_backward = False
        self._ended_before: dict[frozenset[int], bool] = {}
        """Some of the optimizers, after which a step may end: whether it did, the last time."""
        self._new: set[int] = set()
        """Optimizers that were made after the first optimizer step of the step that runs."""
        self._ending_sizes: set[int] = set()
        """How many they are: with an optimizer a parameter, sets are not made for nothing."""
        self.explicit = False
        """Whether the user's own calls of `memtrace.step()` end the steps."""

    def has_stepped(self, optimizer: int) -> bool:
        """Return whether an optimizer has stepped in the step that runs."""
        return optimizer in self._stepped

    def created(self, optimizer: int) -> None:
        """Note a new optimizer: it may take part in any step."""
        self._known.add(optimizer)
        if self._stepped:
            self._new.add(optimizer)

    def gone(self, optimizer: int) -> None:
        """Note that an optimizer was freed."""
        self._known.discard(optimizer)
        self._new.discard(optimizer)
        for stepped in [one for one in self._ended_before if optimizer in one]:
            del self._ended_before[stepped]

    def before(self, optimizer: int) -> None:
        """Note that an optimizer is about to step: if it did already, the step ended before."""
        if self.explicit:
            return
        if optimizer in self._stepped or self._begins_a_round(optimizer):
            self._end_late()
        elif self._may_have_ended:
            self._go_on()
        self._is_stepping = True

    def after(self, optimizer: int, now_ns: int, *, skipped: bool = False, in_backward: bool = False) -> None:
        """Note that an optimizer has stepped, or that a gradient scaler skipped its step.

        In a backward pass, which may step many optimizers, the step ends with the pass.
        """
        if skipped:
            self.before(optimizer)
        self._is_stepping = False
        self._stepped[optimizer] = skipped
        self._last_ns = now_ns
        if self.explicit:
            return
        if in_backward:
            self._ends_with_backward = self._known <= self._stepped.keys()
        elif self._known <= self._stepped.keys():
            self._end(StepEnd(now_ns, self._is_skipped()))
        elif len(self._stepped) in self._ending_sizes and self._ended_before.get(frozenset(self._stepped)):
            self._look()

    def backward_ended(self, now_ns: int) -> None:
        """Note that a backward pass has ended, and with it the step if each optimizer has stepped in it."""
        if self._ends_with_backward and not self.explicit:
            self._end(StepEnd(now_ns, self._is_skipped()))

    def goes_on(self) -> None:
        """Note that the program does something else than to step optimizers, in which the next step may begin."""
        if self._stepped and not self._may_have_ended and not self.explicit:
            self._look()

    def draws_batch(self) -> None:
        """Note that the program asks for data: an iteration begins, so that the step has ended."""
        self.goes_on()
        if self._may_have_ended:
            self._end_late()

    def mark(self, now_ns: int) -> None:
        """End the step now: the user said so, or there is no optimizer and the next forward begins."""
        if self._may_have_ended:
            self._go_on()
        self._end(StepEnd(now_ns, self._is_skipped()))

    def close(self, *, has_begun: bool) -> None:
        """Note that the program ends; `has_begun` says whether it trained after the step may have ended."""
        if not self._stepped or self._is_stepping or self.explicit:
            return
        if not has_begun or not self._may_have_ended or self._ended_before.get(frozenset(self._stepped)):
            self._end_late()

    def _begins_a_round(self, optimizer: int) -> bool:
        """Whether an optimizer was made after one that ends steps alone had stepped: the next fold of a validation."""
        return optimizer in self._new and self._ended_before.get(frozenset(self._stepped), False)

    def _is_skipped(self) -> bool:
        return bool(self._stepped) and all(self._stepped.values())

    def _look(self) -> None:
        self._may_have_ended = True
        self._on_possible_end()

    def _go_on(self) -> None:
        self._may_have_ended = False
        self._ended_before[frozenset(self._stepped)] = False
        self._on_going_on()

    def _end_late(self) -> None:
        if not self._may_have_ended:
            self._look()
        self._ended_before[frozenset(self._stepped)] = True
        self._ending_sizes.add(len(self._stepped))
        self._end(StepEnd(self._last_ns, self._is_skipped(), is_late=True))

    def _end(self, end: StepEnd) -> None:
        self._stepped = {}
        self._new.clear()
        self._may_have_ended = self._ends_with_backward = False
        self._on_end(end)
