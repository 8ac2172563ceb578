"""Operators whose results are kept where a module is computed again: torch's selective checkpointing, by their names.

What runs again in backward is then all but these operators: for the memory of their results, their time is saved.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_WRITES_STATISTICS = "batch_norm"
"""Operators with this in their names write running statistics that their schema does not tell of."""


def has_policies() -> bool:
    """Return whether this torch can keep results of operators where it computes a module again."""
    import torch.utils.checkpoint as checkpoint

    return hasattr(checkpoint, "create_selective_checkpoint_contexts")


def name_of(operator: Any) -> str:
    """Return the name of an operator without that of its overload, as aten.mm."""
    return str(getattr(operator, "overloadpacket", operator))


def can_be_kept(torch: Any, operator: Any, args: Any, kwargs: Any) -> bool:
    """Return whether the result of a call can stand for a second run of it.

    Not if it writes into what it is given, if its result is part of that, or if it draws random numbers: those that
    are drawn after it would then be others.
    """
    return _is_pure(operator) and (not _may_draw(torch, operator) or _dropout(operator, args, kwargs) == 0.0)


@functools.cache
def _is_pure(operator: Any) -> bool:
    schema = getattr(operator, "_schema", None)
    if schema is None or schema.is_mutable or _WRITES_STATISTICS in schema.name:
        return False
    return not any(one.alias_info is not None for one in schema.returns)


def _may_draw(torch: Any, operator: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in operator.tags


def _dropout(operator: Any, args: Any, kwargs: Any) -> float | None:
    """Return with which share an attention drops; `None` where an operator does not say."""
    for at, argument in enumerate(operator._schema.arguments):
        if argument.name == "dropout_p":
            value = args[at] if at < len(args) else kwargs.get("dropout_p", argument.default_value)
            return float(value)
    return None


def contexts_of(torch: Any, operators: frozenset[str]) -> Callable[[], Any]:
    """Return what `checkpoint` takes as `context_fn` so that results of these operators are kept."""
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

    is_named: dict[Any, bool] = {}

    def policy(_context: Any, operator: Any, *args: Any, **kwargs: Any) -> Any:
        named = is_named.get(operator)
        if named is None:
            named = is_named[operator] = name_of(operator) in operators
        if named and can_be_kept(torch, operator, args, kwargs):
            return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    return functools.partial(create_selective_checkpoint_contexts, policy)
