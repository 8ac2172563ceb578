"""Gradients that nothing steps: of parameters that no optimizer has, and that the program does not train by hand.

What is trained by hand is written to between two steps, which two glances at it tell. Where values are not looked at, a
gradient that is dropped and made anew in each step may have been used: only one that stays counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from memtrace.hooks.ownership.glances import Glance, glance_at, version_of
from memtrace.hooks.ownership.owners import plain_kinds

_Parameters = Sequence[tuple[str, Any]]

_NUM_COMPARED = 64
"""Of so many parameters of a model values are compared."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen of a parameter at the end of a step."""

    itself: Glance
    gradient_version: int | None
    """How often its gradient had been."""

    def is_written(self, before: _Seen) -> bool | None:
        """Return whether the program wrote to it since; `None` where that cannot be told."""
        return self.itself.is_written(before.itself)

    def may_be_used_up(self, before: _Seen) -> bool:
        """Return whether its gradient may have been used since, by what does not show: one that stays is added to."""
        now, then = self.gradient_version, before.gradient_version
        return self.itself.version is None or (
            self.itself.values is None and (now is None or then is None or now <= then)
        )


class Unstepped:
    """Looks at the end of each step, and remembers what it saw at the last."""

    def __init__(self, torch: Any) -> None:
        self._kinds = plain_kinds(torch)
        self._before: dict[int, _Seen] = {}
        self.names: list[str] = []
        """Parameters with a gradient that nothing stepped, as of the last look, of models that one trains."""
        self.written: set[str] = set()
        """Parameters of models that no optimizer steps and no backward reaches, and that the program writes to:
        averages of the weights, networks that follow another."""
        self._glances: dict[int, Glance] = {}

    def look(self, models: Iterable[_Parameters], stepped: set[int]) -> None:
        """Look at parameters, by model; `stepped` are those that an optimizer has, by identity."""
        before, self._before = self._before, {}
        models = list(models)
        self._look_at_followers(models, stepped)
        self.names = [name for parameters in models for name in self._of_model(parameters, stepped, before)]

    def _look_at_followers(self, models: Iterable[_Parameters], stepped: set[int]) -> None:
        before, self._glances = self._glances, {}
        for parameters in models:
            if not parameters or any(id(one) in stepped or _has_gradient(one) for _, one in parameters):
                continue
            now = {id(one): glance_at(one, self._kinds, with_values=True) for _, one in parameters[:_NUM_COMPARED]}
            self._glances |= now
            if any(key in before and glance.is_written(before[key]) for key, glance in now.items()):
                self.written.update(name for name, _ in parameters)

    def _of_model(self, parameters: _Parameters, stepped: set[int], before: dict[int, _Seen]) -> list[str]:
        others = [one for one in parameters if id(one[1]) not in stepped]
        with_gradient = [one for one in others if _has_gradient(one[1])]
        now = {id(one): self._seen(one, at < _NUM_COMPARED) for at, (_, one) in enumerate(with_gradient)}
        self._before |= now
        if len(others) < len(parameters):
            written = {key for key in now.keys() & before.keys() if now[key].is_written(before[key])}
            return [name for name, one in with_gradient if id(one) not in written]
        # Where no optimizer has any of a model, all of it may be trained by hand or through copies. One beside a model
        # that is stepped, and that nothing writes to, is a base that was meant to be frozen.
        pairs = [(seen, before.get(key)) for key, seen in now.items()]
        is_used = any(old is None or seen.is_written(old) or seen.may_be_used_up(old) for seen, old in pairs)
        return [] if not stepped or is_used else [name for name, _ in with_gradient]

    def _seen(self, parameter: Any, is_compared: bool) -> _Seen:
        return _Seen(glance_at(parameter, self._kinds, with_values=is_compared), version_of(parameter.grad))


def _has_gradient(parameter: Any) -> bool:
    return bool(parameter.is_leaf) and parameter.grad is not None
