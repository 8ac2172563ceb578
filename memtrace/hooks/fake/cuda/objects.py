"""Objects that ranks send each other: of another rank they come from its own run, where that was made before."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch

from memtrace.hooks.fake.cuda.told import Told

_LISTS = {"broadcast_object_list": "object_list", "recv_object_list": "object_list"}
"""Functions that fill a list, with the name of that argument."""


def install(told: Told, modules: Iterable[Any]) -> None:
    """Let the functions ask. Affects: `torch.distributed`, for the rest of the process."""
    for module in modules:
        for name, made in {
            **dict.fromkeys(_LISTS, _received),
            "scatter_object_list": _scattered,
            "send_object_list": _sent,
        }.items():
            if hasattr(module, name):
                setattr(module, name, made(getattr(module, name), told))


class Call:
    """One call of such a function: who sends, and in which group."""

    def __init__(self, exchange: Callable[..., Any], args: Any, kwargs: Any) -> None:
        bound = inspect.signature(exchange).bind(*args, **kwargs)
        bound.apply_defaults()
        self.given: dict[str, Any] = bound.arguments
        distributed: Any = torch.distributed
        group = self.given.get("group")
        self.is_shared = (
            distributed.is_initialized() and distributed.get_rank(group) >= 0 and distributed.get_world_size(group) > 1
        )
        self.ranks = tuple(distributed.get_process_group_ranks(group)) if self.is_shared else ()

    def peer(self, end: str) -> int | None:
        """Return the rank at an end (`src`, `dst`), as all ranks count; `None` for any."""
        inner, outer = self.given.get(f"group_{end}"), self.given.get(end)
        return outer if inner is None else self.ranks[inner]


def _received(exchange: Any, told: Told) -> Any:
    """Return a function that fills its list with what the source sent."""
    name = exchange.__name__

    @functools.wraps(exchange)
    def call(*args: Any, **kwargs: Any) -> Any:
        made = Call(exchange, args, kwargs)
        source, items = made.peer("src"), made.given[_LISTS[name]]
        if not made.is_shared:
            return exchange(*args, **kwargs)
        is_broadcast = name == "broadcast_object_list"
        kind = f"{name} {made.ranks} {source}" if is_broadcast else _between(source, told.rank)
        if is_broadcast and source == told.rank:
            told.tell(kind, list(items))
            return exchange(*args, **kwargs)
        items[:] = told.next_of(kind, _named(source), f"{name} asks for an object of another rank")
        return source

    return call


def _scattered(exchange: Any, told: Told) -> Any:
    """Return a function that gives each rank its own of what the source has."""

    @functools.wraps(exchange)
    def call(*args: Any, **kwargs: Any) -> Any:
        made = Call(exchange, args, kwargs)
        source, given = made.peer("src"), made.given
        if not made.is_shared:
            return exchange(*args, **kwargs)
        kind = f"{exchange.__name__} {made.ranks} {source}"
        if source == told.rank:
            every = list(given["scatter_object_input_list"])
            told.tell(kind, every)
        else:
            every = told.next_of(kind, _named(source), f"{exchange.__name__} asks for an object of another rank")
        given["scatter_object_output_list"][0] = every[made.ranks.index(told.rank)]
        return None

    return call


def _sent(exchange: Any, told: Told) -> Any:
    """Return a function that leaves its list for one rank."""

    @functools.wraps(exchange)
    def call(*args: Any, **kwargs: Any) -> Any:
        made = Call(exchange, args, kwargs)
        if made.is_shared:
            told.tell(_between(told.rank, made.peer("dst")), list(made.given["object_list"]))
        return exchange(*args, **kwargs)

    return call


def _between(source: int | None, target: int | None) -> str:
    return f"objects from {source} to {target}"


def _named(source: int | None) -> tuple[int, ...]:
    return () if source is None else (source,)
