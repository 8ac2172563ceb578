"""States of Adam and AdamW in 8 bits: those of bitsandbytes, where it is installed, in the place of torch's own.

An optimizer becomes one of bitsandbytes while it is made, with what the program gave it. It steps otherwise: states are
rounded, block by block, so that losses are near to the plain program's and not the same.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

from memtrace.hooks.torch_side.patches import Patches, hide_from_warnings

PACKAGE = "bitsandbytes"
_KINDS = ("Adam", "AdamW")
_TAKEN = ("lr", "betas", "eps", "weight_decay")
_OTHERWISE = ("amsgrad", "maximize", "capturable", "differentiable")


def is_installed() -> bool:
    """Return whether the package is there; it is not imported for that."""
    return importlib.util.find_spec(PACKAGE) is not None


def reason_against_small_states(torch: Any, optimizer: Any) -> str | None:
    """Return why the states of an optimizer that has been made have to stay; `None` where they need not."""
    kind = type(optimizer)
    if kind not in _kinds(torch):
        return f"{kind.__name__} has no counterpart that steps as it does"
    for group in optimizer.param_groups:
        if (why := _against(torch, kind.__name__, group)) is not None:
            return why
    return None


def shrink_states(torch: Any, patches: Patches, refuse: Callable[[str], None]) -> None:
    """Make optimizers of bitsandbytes where the program asks for Adam or AdamW; `refuse` is told why not."""
    for kind in _kinds(torch):
        patches.replace(kind, "__init__", _init_of(torch, kind, refuse))


def _kinds(torch: Any) -> tuple[Any, ...]:
    return tuple(getattr(torch.optim, name) for name in _KINDS)


def _against(torch: Any, name: str, options: dict[str, Any]) -> str | None:
    for option in _OTHERWISE:
        if options.get(option):
            return f"{name} is made with {option}, which states in 8 bits have not"
    if isinstance(options.get("lr"), torch.Tensor):
        return "its learning rate is a tensor"
    if name == "Adam" and options.get("weight_decay") and not options.get("decoupled_weight_decay"):
        return "Adam adds its weight decay to the gradient, which states in 8 bits do not"
    for one in options.get("params", ()):
        if hasattr(one, "_local_tensor"):
            return "parameters are sharded"
        if not one.is_floating_point():
            return "parameters are complex"
    return None


def _init_of(torch: Any, kind: Any, refuse: Callable[[str], None]) -> Callable[..., None]:
    original = kind.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if type(self) is not kind:
            original(self, *args, **kwargs)
            return
        given = signature.bind(self, *args, **kwargs)
        given.apply_defaults()
        options = given.arguments
        options["params"] = groups = _read_once(options["params"])
        reasons = (_against(torch, kind.__name__, {**options, **one}) for one in _grouped(groups))
        why = next((one for one in reasons if one is not None), None)
        counterpart = None if why is not None else _counterpart()
        if counterpart is None:
            refuse(why or f"{PACKAGE} cannot be imported")
            original(*given.args, **given.kwargs)
            return
        self.__class__ = counterpart
        self.__init__(groups, **{name: options[name] for name in _TAKEN})

    hide_from_warnings(init)
    return init


def _counterpart() -> Any:
    try:
        return importlib.import_module(f"{PACKAGE}.optim").AdamW8bit
    except Exception:
        # It loads libraries of its own, which may not be there.
        return None


def _read_once(given: Any) -> list[Any]:
    """Return parameters as they were given, each generator of them read."""
    return [{**one, "params": _listed(one["params"])} if isinstance(one, dict) else one for one in given]


def _listed(given: Any) -> list[Any]:
    return [given] if hasattr(given, "requires_grad") else list(given)


def _grouped(given: list[Any]) -> list[dict[str, Any]]:
    """Return the groups that an optimizer is given, with parameters alone; they may come with their names."""
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    return [
        {**group, "params": [one[1] if isinstance(one, tuple) else one for one in group["params"]]} for group in groups
    ]
