"""States of an optimizer shared between ranks that train the same weights: torch's `ZeroRedundancyOptimizer`.

Each rank keeps the states of some parameters, steps those, and sends them to the others. That computes the same, to the
last bit, where every rank has the same gradients and the optimizer works on each parameter by itself.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from memtrace.hooks.changes.stepping.gradient_use import ELEMENTWISE, is_distributed
from memtrace.hooks.torch_side.patches import Patches, hide_from_warnings

_REPLICATED = "DistributedDataParallel"


def ranks_of(torch: Any) -> int:
    """Return how many ranks train together."""
    if not is_distributed(torch):
        return 1
    group = torch.distributed.group.WORLD
    return 1 if group is None else int(group.size())


def replicated_in(root: Any) -> dict[int, Any]:
    """Return what `DistributedDataParallel` keeps the same on all ranks of a model, by identity of the parameters."""
    return {
        id(parameter): module.process_group
        for module in root.modules()
        if type(module).__name__ == _REPLICATED
        for parameter in module.parameters()
    }


def reason_against_sharded_states(torch: Any, optimizer: Any, replicated: dict[int, Any]) -> str | None:
    """Return why the states of an optimizer are kept whole by every rank; `None` where they need not be."""
    kind = type(optimizer)
    if kind not in _kinds(torch):
        return f"{kind.__name__} is not known to treat each parameter by itself"
    if any(group.get("differentiable") for group in optimizer.param_groups):
        return "its step is differentiable"
    groups = [replicated.get(id(one)) for group in optimizer.param_groups for one in group["params"]]
    if any(one is None for one in groups):
        return f"it steps parameters that no {_REPLICATED} keeps the same on all ranks"
    if any(one is not torch.distributed.group.WORLD for one in groups):
        return "not all ranks train the same weights"
    return None


def shard_states(torch: Any, patches: Patches, refuse: Callable[[str], None]) -> None:
    """Make `ZeroRedundancyOptimizer` of the optimizers that a program asks for; `refuse` is told why not."""
    inside: list[Any] = []
    for kind in _kinds(torch):
        patches.replace(kind, "__init__", _init_of(torch, kind, refuse, inside))


def share_of(optimizer: Any) -> tuple[int, int] | None:
    """Return how many elements this rank steps, and the most that a rank does; `None` of another optimizer."""
    if type(optimizer).__name__ != "ZeroRedundancyOptimizer":
        return None
    held = [
        sum(one.numel() for group in groups for one in group["params"]) for groups in optimizer._partition_parameters()
    ]
    return held[optimizer.rank], max(held)


def _kinds(torch: Any) -> list[Any]:
    return [getattr(torch.optim, name) for name in sorted(ELEMENTWISE) if hasattr(torch.optim, name)]


def _init_of(torch: Any, kind: Any, refuse: Callable[[str], None], inside: list[Any]) -> Callable[..., None]:
    original = kind.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, params: Any, *args: Any, **kwargs: Any) -> None:
        # Parameters are often a generator: it is read once.
        given = list(params) if inspect.isgenerator(params) else params
        why = None if inside else _against_ranks(torch, given)
        if inside or type(self) is not kind or why is not None:
            if why is not None and type(self) is kind:
                refuse(why)
            original(self, given, *args, **kwargs)
            return
        options = dict(signature.bind(self, given, *args, **kwargs).arguments)
        options = {name: value for name, value in options.items() if name not in ("self", "params")}
        with warnings.catch_warnings():
            # It compiles functions that nobody asks for here, and warns of how it does.
            warnings.simplefilter("ignore")
            from torch.distributed.optim import ZeroRedundancyOptimizer

        # The share of this rank is stepped by an optimizer of the same class, which is made in there.
        inside.append(self)
        try:
            self.__class__ = ZeroRedundancyOptimizer
            self.__init__(given, optimizer_class=kind, **options)
        finally:
            inside.pop()

    hide_from_warnings(init)
    return init


def _against_ranks(torch: Any, given: Iterable[Any]) -> str | None:
    if ranks_of(torch) < 2:
        return "one rank has nobody to share them with, or the optimizer is made before the ranks know each other"
    for one in given:
        members = one["params"] if isinstance(one, dict) else [one]
        members = [members] if hasattr(members, "requires_grad") else members
        if not isinstance(members, (list, tuple)) or not all(
            hasattr(parameter, "requires_grad") for parameter in members
        ):
            return "its parameters come with names, or one after the other"
        if any(hasattr(parameter, "_local_tensor") for parameter in members):
            return "parameters are sharded"
    return None
