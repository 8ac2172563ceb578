"""Objects that ranks send each other: of another rank they come from its own run, where that was made before."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch

from memtrace.hooks.fake.cuda.told import Told


def install(told: Told, modules: Iterable[Any]) -> None:
    """Let the functions ask. Affects: `torch.distributed`, for the rest of the process."""
    for module in modules:
        for name, answer in {
            "broadcast_object_list": _broadcast,
            "recv_object_list": _received,
            "scatter_object_list": _scattered,
            "send_object_list": _sent,
        }.items():
            if hasattr(module, name):
                setattr(module, name, _asking(getattr(module, name), answer, told))


class Call:
    """One call of such a function: who sends, and in which group."""

    def __init__(self, exchange: Callable[..., Any], args: Any, kwargs: Any) -> None:
        bound = inspect.signature(exchange).bind(*args, **kwargs)
        bound.apply_defaults()
        self.given: dict[str, Any] = bound.arguments
        self.name = exchange.__name__
        self.run = functools.partial(exchange, *args, **kwargs)
        """The function of torch itself."""
        distributed: Any = torch.distributed
        group = self.given.get("group")
        self.is_shared = (
            distributed.is_initialized() and distributed.get_rank(group) >= 0 and distributed.get_world_size(group) > 1
        )
        self.ranks = tuple(distributed.get_process_group_ranks(group)) if self.is_shared else ()

    def peer(self, end: str) -> int | None:
        """Return the rank at an end (`src`, `dst`), as all ranks of a shared group count; `None` for any."""
        inner, outer = self.given.get(f"group_{end}"), self.given.get(end)
        return outer if inner is None else self.ranks[inner]


_Answer = Callable[[Call, Told], Any]


def _asking(exchange: Callable[..., Any], answer: _Answer, told: Told) -> Callable[..., Any]:
    """Return a function that answers calls in groups of several ranks, and leaves all others alone."""

    @functools.wraps(exchange)
    def call(*args: Any, **kwargs: Any) -> Any:
        made = Call(exchange, args, kwargs)
        return answer(made, told) if made.is_shared else made.run()

    return call


def _broadcast(made: Call, told: Told) -> Any:
    """Give every rank the list of the source."""
    source, items = made.peer("src"), made.given["object_list"]
    kind = f"{made.name} {made.ranks} {source}"
    if source != told.rank:
        return _filled(made, told, kind, source)
    told.tell(kind, list(items))
    return made.run()


def _received(made: Call, told: Told) -> Any:
    """Fill a list with what one rank sent to this one."""
    source = made.peer("src")
    return _filled(made, told, _between(source, told.rank), source)


def _filled(made: Call, told: Told, kind: str, source: int | None) -> int | None:
    made.given["object_list"][:] = _of_another(made, told, kind, source)
    return source


def _scattered(made: Call, told: Told) -> None:
    """Give each rank its own of what the source has."""
    source, given = made.peer("src"), made.given
    kind = f"{made.name} {made.ranks} {source}"
    if source == told.rank:
        every = list(given["scatter_object_input_list"])
        told.tell(kind, every)
    else:
        every = _of_another(made, told, kind, source)
    given["scatter_object_output_list"][0] = every[made.ranks.index(told.rank)]


def _sent(made: Call, told: Told) -> Any:
    """Leave a list for one rank."""
    told.tell(_between(told.rank, made.peer("dst")), list(made.given["object_list"]))
    return made.run()


def _of_another(made: Call, told: Told, kind: str, source: int | None) -> Any:
    tellers = () if source is None else (source,)
    return told.next_of(kind, tellers, f"{made.name} asks for an object of another rank")


def _between(source: int | None, target: int | None) -> str:
    return f"objects from {source} to {target}"
