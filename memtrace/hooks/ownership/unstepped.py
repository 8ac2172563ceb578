"""Gradients that nothing steps: of parameters that no optimizer has, and that the program does not train by hand.

What is trained by hand is written to between two steps. In place torch counts that (`parameter.sub_(…)` under no_grad);
through `parameter.data` it does not, and the values tell. They are looked at on the CPU alone, where that waits for
nothing. Elsewhere a gradient that is dropped and made anew in each step may have been used: only one that stays counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from memtrace.hooks.ownership.owners import plain_kinds

_Parameters = Sequence[tuple[str, Any]]

_NUM_VALUES = 8
"""So many values of a parameter are compared, spread over it."""
_NUM_COMPARED = 64
"""Of so many parameters of a model."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen of a parameter at the end of a step."""

    version: int | None
    """How often it had been written to; `None` where it does not count that, as in inference mode."""
    values: tuple[Any, ...] | None
    """Some of its values; `None` where they are not looked at."""
    gradient_version: int | None
    """How often its gradient had been."""

    def is_written(self, before: _Seen) -> bool:
        """Return whether the program wrote to it since."""
        return (self.version, self.values) != (before.version, before.values)

    def may_be_used_up(self, before: _Seen) -> bool:
        """Return whether its gradient may have been used since, by what does not show: one that stays is added to."""
        now, then = self.gradient_version, before.gradient_version
        return self.version is None or (self.values is None and (now is None or then is None or now <= then))


class Unstepped:
    """Looks at the end of each step, and remembers what it saw at the last."""

    def __init__(self, torch: Any) -> None:
        self._kinds = plain_kinds(torch)
        self._before: dict[int, _Seen] = {}
        self.names: list[str] = []
        """Parameters with a gradient that nothing stepped, as of the last look, of models that one trains."""

    def look(self, models: Iterable[_Parameters], stepped: set[int]) -> None:
        """Look at parameters, by model; `stepped` are those that an optimizer has, by identity."""
        before, self._before = self._before, {}
        self.names = [name for parameters in models for name in self._of_model(parameters, stepped, before)]

    def _of_model(self, parameters: _Parameters, stepped: set[int], before: dict[int, _Seen]) -> list[str]:
        others = [one for one in parameters if id(one[1]) not in stepped]
        with_gradient = [one for one in others if one[1].is_leaf and one[1].grad is not None]
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
        values = self._values(parameter) if is_compared else None
        return _Seen(_version(parameter), values, _version(parameter.grad))

    def _values(self, parameter: Any) -> tuple[Any, ...] | None:
        if type(parameter) not in self._kinds or parameter.device.type != "cpu":
            return None
        try:
            flat = parameter.detach().view(-1)
            return tuple(islice(flat[:: max(len(flat) // _NUM_VALUES, 1)].tolist(), _NUM_VALUES))
        except (AttributeError, RuntimeError, NotImplementedError):
            # Of a layout or type whose values cannot be had so.
            return None


def _version(tensor: Any) -> int | None:
    try:
        version: int | None = getattr(tensor, "_version", None)
    except RuntimeError:
        return None
    return version
