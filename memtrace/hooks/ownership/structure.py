"""What modules and optimizers hold at a moment, so that it can be compared with what they held at another.

Names and identities in flat lists, which are gathered and compared without a line of Python for each tensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter
from typing import Any

_parameters_of, _buffers_of, _modules_of = map(attrgetter, ("_parameters", "_buffers", "_modules"))


class Structure:
    """What they hold, by name and identity."""

    def __init__(self, roots: Iterable[Any], optimizers: Iterable[Any]) -> None:
        """Gather, without looking at any tensor."""
        self.names: list[Any] = []
        """Names of all that is held, how many there are, and modules by identity; equal lists are equal trees."""
        self.models: list[list[Any]] = []
        """Parameters of each root, and `None` where it has a name for one."""
        self.stepped: list[Any] = []
        """Parameters of optimizers."""
        self.is_plain = True
        """Whether all is kept as torch keeps it: in dictionaries, the states of a parameter in one without others."""
        self.others: list[Any] = []
        """Buffers and states of optimizers as they come, and `None`."""
        self._keys: list[Any] = []
        for root in roots:
            self._gather_root(root)
        for optimizer in optimizers:
            self._gather_optimizer(optimizer)
        self.held = [*chain.from_iterable(self.models), *self.stepped]
        """Parameters of roots and optimizers as they come, and `None` where there is a name for one."""

    def _gather_root(self, root: Any) -> None:
        """Gather level by level: what the modules of one hold is the next."""
        parameters: list[Any] = []
        met, level = {id(root)}, [root]
        while level and self.is_plain:
            parameters += self._of_tables(map(_parameters_of, level))
            self.others += self._of_tables(map(_buffers_of, level))
            children = self._of_tables(map(_modules_of, level))
            self.names += map(id, children)
            level = []
            for child in children:
                if child is not None and id(child) not in met:
                    met.add(id(child))
                    level.append(child)
        self.models.append(parameters)

    def _of_tables(self, of_modules: Iterable[Any]) -> list[Any]:
        """Note the names in a table of each module, and return what has them."""
        tables = list(of_modules)
        if not all(issubclass(kind, dict) for kind in set(map(type, tables))):
            self.is_plain = False
            return []
        self.names += map(len, tables)
        self.names += chain.from_iterable(tables)
        return list(chain.from_iterable(map(dict.values, tables)))

    def _gather_optimizer(self, optimizer: Any) -> None:
        states = optimizer.state
        for group in optimizer.param_groups:
            self.stepped += group["params"]
            self.names.append(len(self.stepped))
        if not (isinstance(states, dict) and {dict}.issuperset(map(type, states.values()))):
            self.is_plain = False
            return
        self._keys += states
        self.names += map(len, states.values())
        self.names += chain.from_iterable(states.values())
        self.others += chain.from_iterable(map(dict.values, states.values()))

    def identities(self) -> list[int]:
        """Return what is held by identity: parameters, and what else there is."""
        return list(map(id, chain(self.held, self.others, self._keys)))
