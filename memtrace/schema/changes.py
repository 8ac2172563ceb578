"""What `memtrace fix` changes of a program from outside, as it travels: to the program, and in a plan file.

A plan may come from anywhere: `Changes.from_values` takes nothing that it does not know, and nothing of another type.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

PLAN_FORMAT = "memtrace-fix-plan"
PLAN_VERSION = 1

OPTIMIZER_KERNELS = ("loop", "fused")
"""Ways in which an optimizer may work through its parameters: one at a time, or all in one kernel."""
PRECISIONS = ("bfloat16", "float16")
ALLOCATOR_VARIABLE = "PYTORCH_CUDA_ALLOC_CONF"
"""The only variable that a plan may set."""
STEP = "the step of the optimizer"
"""Stands among the names of modules that could not be changed, where the step could not be made in backward."""
STATES = "states of the optimizer"
"""Stands there where they could not be made smaller."""

_MAX_MODULES = 20_000
_MODULE = re.compile(r"[\w.#<>\-]{1,500}")
_SAVED = re.compile(_MODULE.pattern + r":[\w.]{1,200}")
_SETTING = re.compile(r"[A-Za-z0-9_:,.\[\]\-]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is changed; each as it is where nothing is said."""

    recompute: tuple[str, ...] = ()
    """Modules whose activations are computed again in backward, by path as in a trace."""
    saved: tuple[str, ...] = ()
    """Operators whose results are kept all the same, each after the path of such a module: blocks.0:aten.mm."""
    offload: tuple[str, ...] = ()
    """Modules whose activations wait for backward in the memory of the host."""
    optimizer: str | None = None
    """How optimizers work through their parameters, of `OPTIMIZER_KERNELS`."""
    set_to_none: bool = False
    """Whether `zero_grad` frees gradients where the program asks to fill them with zeros."""
    step_in_backward: bool = False
    """Whether each parameter is stepped, and its gradient freed, as soon as backward has made it."""
    small_states: bool = False
    """Whether Adam and AdamW keep their states in 8 bits, by the optimizer of bitsandbytes: they step otherwise."""
    sharded_states: bool = False
    """Whether ranks that train the same weights share the states of optimizers: `ZeroRedundancyOptimizer`."""
    chunk_loss: bool = False
    """Whether a cross entropy keeps no log-probabilities and makes them again in backward, some rows at a time."""
    no_cache: bool = False
    """Whether models of transformers keep no cache of keys and values while they train."""
    autocast: str | None = None
    """Precision in which forwards run, of `PRECISIONS`."""
    allocator: str | None = None
    """Value of `PYTORCH_CUDA_ALLOC_CONF`."""
    micro_batch: int | None = None
    """What stands for {mbs} in the command."""
    accumulation: int | None = None
    """What stands for {accum} in the command: micro-batches that are accumulated before a step."""

    @property
    def is_nothing(self) -> bool:
        """Whether the program stays as it is."""
        return self == Changes()

    def saved_by_module(self) -> tuple[tuple[str, str], ...]:
        """Return the module and the operator of each result that is kept.

        >>> Changes(recompute=("blocks.0",), saved=("blocks.0:aten.mm",)).saved_by_module()
        (('blocks.0', 'aten.mm'),)
        """
        return tuple((one.rpartition(":")[0], one.rpartition(":")[2]) for one in self.saved)

    def values(self) -> dict[str, Any]:
        """Return what is changed as plain values; what stays as it is is left out."""
        plain = Changes()
        return {name: value for name, value in asdict(self).items() if value != getattr(plain, name)}

    @classmethod
    def from_values(cls, values: Any) -> Changes:
        """Return the changes that plain values mean.

        Raises:
            ValueError: they are none; the text says what is wrong.
        """
        if not isinstance(values, dict):
            raise ValueError("changes are not an object")
        known = {one.name for one in fields(cls)}
        if unknown := sorted(str(name)[:40] for name in values.keys() - known):
            raise ValueError(f"unknown change {unknown[0]!r}")
        checked = {name: _CHECKS[name](name, value) for name, value in values.items() if value is not None}
        made = cls(**checked)
        if beside := {owner for owner, _ in made.saved_by_module()}.difference(made.recompute):
            raise ValueError(f"saved: {min(beside)[:60]!r} is not computed again")
        return made

    def plan(self) -> dict[str, Any]:
        """Return the document of a plan file."""
        return {"format": PLAN_FORMAT, "version": PLAN_VERSION, "changes": json.loads(json.dumps(self.values()))}

    @classmethod
    def from_plan(cls, document: Any) -> Changes:
        """Return the changes of a plan file; what else stands beside them is not read.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(document, dict) or document.get("format") != PLAN_FORMAT:
            raise ValueError(f"not a {PLAN_FORMAT}")
        if type(document.get("version")) is not int or document["version"] != PLAN_VERSION:
            raise ValueError(f"version {str(document.get('version'))[:20]} of a plan, and this memtrace reads 1")
        return cls.from_values(document.get("changes"))


def _list_of(pattern: re.Pattern[str], what: str) -> Any:
    def check(name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > _MAX_MODULES:
            raise ValueError(f"{name}: not a list of modules")
        for one in value:
            if not isinstance(one, str) or not pattern.fullmatch(one):
                raise ValueError(f"{name}: {str(one)[:60]!r} is no {what}")
        return tuple(value)

    return check


def _one_of(*allowed: str) -> Any:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"{name}: {str(value)[:60]!r} is none of {', '.join(allowed)}")
        return value

    return check


def _flag(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{name}: not true or false")
    return value


def _setting(name: str, value: Any) -> str:
    if not isinstance(value, str) or not _SETTING.fullmatch(value):
        raise ValueError(f"{name}: not settings of an allocator")
    return value


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 10**9:
        raise ValueError(f"{name}: not a number from 1 on")
    return value


_CHECKS = {
    "recompute": _list_of(_MODULE, "path of a module"),
    "saved": _list_of(_SAVED, "path of a module and operator in it"),
    "offload": _list_of(_MODULE, "path of a module"),
    "optimizer": _one_of(*OPTIMIZER_KERNELS),
    "set_to_none": _flag,
    "step_in_backward": _flag,
    "small_states": _flag,
    "sharded_states": _flag,
    "chunk_loss": _flag,
    "no_cache": _flag,
    "autocast": _one_of(*PRECISIONS),
    "allocator": _setting,
    "micro_batch": _count,
    "accumulation": _count,
}
