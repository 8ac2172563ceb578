"""Changes that are settings: how optimizers work, what becomes of gradients, caches that training has no use for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from memtrace.hooks.torch_side.patches import Patches, hide_from_warnings

LOOP, FUSED = "loop", "fused"


def optimizer_kernels(optimizer: Any) -> dict[str, Any]:
    """Return how an optimizer works through its parameters now, and whether it could do so in one kernel."""
    groups = optimizer.param_groups
    options = inspect.signature(type(optimizer).__init__).parameters
    return {
        "class_name": type(optimizer).__name__,
        "foreach": any("foreach" in one and one["foreach"] is not False and not one.get("fused") for one in groups),
        "fused": any(bool(one.get("fused")) for one in groups),
        "can_fuse": "fused" in options and _all_floating(groups) and type(optimizer).__module__.startswith("torch."),
    }


def _all_floating(groups: Any) -> bool:
    return all(one.is_floating_point() for group in groups for one in group["params"])


def change_optimizer(optimizer: Any, kernels: str) -> None:
    """Let an optimizer work through its parameters in another way. What the program chose by itself stays."""
    can_fuse = optimizer_kernels(optimizer)["can_fuse"]
    for group in optimizer.param_groups:
        if "foreach" not in group or group.get("fused") or group.get("differentiable"):
            continue
        if kernels == FUSED and can_fuse and _on_accelerator(group):
            group["foreach"], group["fused"] = False, True
        elif group["foreach"] is None or kernels == LOOP:
            group["foreach"] = False


def _on_accelerator(group: Any) -> bool:
    return all(one.device.type in ("cuda", "xpu") for one in group["params"])


def free_gradients(torch: Any, patches: Patches) -> None:
    """Let `zero_grad` free gradients where the program asks to fill them with zeros."""
    for owner in (torch.optim.Optimizer, torch.nn.Module):
        original = owner.zero_grad

        def zero_grad(self: Any, set_to_none: bool = True, _original: Callable[..., Any] = original) -> Any:
            return _original(self, set_to_none=True)

        functools.update_wrapper(zero_grad, original)
        hide_from_warnings(zero_grad)
        patches.replace(owner, "zero_grad", zero_grad)


class NoCache:
    """Switches the cache of keys and values off while a model of transformers runs a training forward."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._configs: list[Any] = []

    def before(self, root: Any, kwargs: dict[str, Any]) -> list[Any]:
        """Switch off; return what `after` switches on again."""
        if not root.training or not self._torch.is_grad_enabled() or kwargs.get("use_cache") is not None:
            return []
        changed = [one for one in configs_of(root) if uses_cache(one)]
        for config in changed:
            config.use_cache = False
        return changed

    def after(self, changed: list[Any]) -> None:
        """Switch on what was."""
        for config in changed:
            config.use_cache = True


def configs_of(root: Any) -> list[Any]:
    """Return the configurations that a model and what is in it hold, each once."""
    found = {}
    for module in root.modules():
        config = vars(module).get("config")
        if config is not None:
            found[id(config)] = config
    return list(found.values())


def uses_cache(config: Any) -> bool:
    """Return whether a model of this configuration keeps keys and values."""
    return getattr(config, "use_cache", None) is True
