"""Whether a module can be run again in backward, as far as can be told before it runs. In: a module. Out: a reason."""

from __future__ import annotations

from typing import Any

from memtrace.hooks.ownership.module_tree import modules_in

_WRAPPERS = frozenset({"DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"})
_SHARDED = "FSDPModule"


def reason_against(torch: Any, module: Any) -> str | None:
    """Return why a module is left as it is; `None` where nothing speaks against it."""
    if isinstance(module, torch.jit.ScriptModule):
        return "it is scripted, so that its forward is not Python"
    if _is_compiled(module):
        return "it is compiled, so that its forward cannot be run in parts"
    if "forward" in vars(module):
        return "its forward has been replaced by another function"
    if type(module).__name__ in _WRAPPERS:
        return "it wraps the model for several GPUs: modules inside it can be changed"
    for path, inner in modules_in(module):
        if inner is module:
            continue
        if _has_base(inner, _SHARDED) or type(inner).__name__ in _WRAPPERS:
            return f"{path} inside it is sharded by itself"
        if isinstance(inner, torch.jit.ScriptModule) or _is_compiled(inner):
            return f"{path} inside it is compiled"
        if inner._forward_hooks or inner._forward_pre_hooks:
            return f"{path} inside it has forward hooks of the program, which would run twice"
    return None


def _is_compiled(module: Any) -> bool:
    if type(module).__name__ == "OptimizedModule" or "_orig_mod" in vars(module):
        return True
    return getattr(module, "_compiled_call_impl", None) is not None


def _has_base(module: Any, name: str) -> bool:
    return any(one.__name__ == name for one in type(module).__mro__)


def own_state(module: Any) -> tuple[Any, ...]:
    """Return what a call may not change of a module: its attributes beside parameters, buffers and modules."""
    found: list[Any] = []
    for name, value in vars(module).items():
        if name.startswith("_") and (name.endswith("_hooks") or name in _TABLES):
            continue
        found.append((name, id(value), len(value) if isinstance(value, (list, dict, set)) else 0))
    return tuple(found)


_TABLES = frozenset({"_parameters", "_buffers", "_modules"})


def difference(before: tuple[Any, ...], after: tuple[Any, ...]) -> str | None:
    """Return the name of an attribute that is another than before; `None` if all are as they were."""
    if before == after:
        return None
    known = {name: rest for name, *rest in before}
    changed = [name for name, *rest in after if known.get(name) != rest]
    return str(changed[0]) if changed else "an attribute"
