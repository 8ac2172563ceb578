"""What an object of the program refers to: the steps that lead from a variable to a tensor. No code of its runs."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from itertools import islice
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    ModuleType,
    TracebackType,
)
from typing import Any

from memtrace.hooks.keepers.program_frames import ended_variables, is_own_file, is_program_file

_ATOMS = frozenset(
    {
        *(str, int, float, bool, bytes, complex, type(None), type(Ellipsis), range, slice, bytearray, memoryview),
        *(BuiltinFunctionType, CodeType, ModuleType, MemberDescriptorType, GetSetDescriptorType, MappingProxyType),
    }
)
"""What holds no tensor."""
CONTAINERS: tuple[type, ...] = (list, tuple, deque, set, frozenset)
_MAX_ITEMS = 1024
"""Of a longer container the first and the last half of so many are looked at: what is fed lately stands at an end."""
LRU_CACHE = "_lru_cache_wrapper"
"""The class of a function whose results functools keeps."""
_TENSOR_TABLES = ("_parameters", "_buffers")
"""Tables of a module whose tensors have owners, once the module or one around it was called."""
MODULE_TABLES = (*_TENSOR_TABLES, "_modules")
"""Tables of a module whose values are attributes of it."""
SIZED: frozenset[type] = frozenset({dict, OrderedDict, *CONTAINERS})
"""Classes of which an empty one holds nothing, and can be asked for that without running code of the program."""

Follow = Callable[[Any], Iterable[Any]]
"""What an object refers to, as far as tensors may be found there."""


class Edges(dict[type, Follow | None]):
    """How to follow objects of a class, for one search; `None` where they lead to no tensor, as memtrace's own.

    A table, as a search looks into it for each reference that there is. `module_class` is that of torch's modules;
    `is_owned` says whether a tensor of one has an owner, without which it is passed over. As a rule all have.
    """

    def __init__(self, module_class: type, is_owned: Callable[[Any], bool] = lambda _: True) -> None:
        super().__init__()
        self._module_class = module_class
        self._is_owned = is_owned

    def __missing__(self, kind: type) -> Follow | None:
        """Return how to follow the objects of a class that was not met yet."""
        follow = self[kind] = self._choose(kind)
        return follow

    def may_hold(self, held: Any) -> bool:
        """Return whether an object may refer to a tensor; memtrace's own are left out."""
        return self[type(held)] is not None

    def _choose(self, kind: type) -> Follow | None:
        if kind in _ATOMS or str(vars(kind).get("__module__")).startswith("memtrace."):
            return None
        for builtin, follow in (
            (FunctionType, _from_function),
            (TracebackType, lambda entry: (entry.tb_next, entry.tb_frame)),
            # That of a call which has ended: its variables are what it refers to.
            (FrameType, lambda frame: ended_variables(frame).values()),
            (dict, _values if kind is dict else lambda held: (*_values(held), *attributes_of(held).values())),
            (CONTAINERS, _some if kind in CONTAINERS else lambda held: (*_some(held), *attributes_of(held).values())),
            (self._module_class, self._from_slotted_module if _has_slots(kind) else self._from_module),
            (type, _from_class),
            (BaseException, _from_exception),
        ):
            if issubclass(kind, builtin):
                return follow
        return _from_other

    def _from_module(self, module: Any) -> list[Any]:
        # There may be thousands, each with a dozen tables that are empty.
        return self._of_module(object.__getattribute__(module, "__dict__"))

    def _from_slotted_module(self, module: Any) -> list[Any]:
        return self._of_module(attributes_of(module))

    def _of_module(self, own: dict[str, Any]) -> list[Any]:
        return [value for name, value in own.items() if name not in _TENSOR_TABLES or self._is_unowned(value)]

    def _is_unowned(self, table: Any) -> bool:
        """Return whether the first tensor of a table has no owner: those of a module have, or none has."""
        if not (issubclass(type(table), dict) and table):
            return False
        first = next((one for one in dict.values(table) if one is not None), None)
        return first is not None and not self._is_owned(first)


def attributes_of(held: Any) -> dict[str, Any]:
    """Return the attributes of an object, without asking it: properties and the like do not run."""
    found: dict[str, Any] = {}
    kind = type(held)
    for one in kind.__mro__:
        if "__slots__" not in vars(one):
            continue
        for name, member in vars(one).items():
            if isinstance(member, MemberDescriptorType) and name not in found and name != "__dict__":
                try:
                    found[name] = member.__get__(held, kind)
                except AttributeError:
                    # A slot that is empty.
                    continue
    try:
        own = object.__getattribute__(held, "__dict__")
    except AttributeError:
        return found
    return {**found, **own} if type(own) is dict else found


def is_own_dict(parent: Any, child: dict[str, Any]) -> bool:
    """Return whether a dictionary is where an object keeps its attributes: the program says nothing of it."""
    try:
        return object.__getattribute__(parent, "__dict__") is child
    except AttributeError:
        return False


def content_of(cell: CellType) -> Any:
    """Return what a cell of a closure holds; nothing where it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def is_class_of_program(kind: type) -> bool:
    """Return whether the program wrote a class, or methods of it. The methods of a dataclass are of no file."""
    functions = map(_function_of, list(vars(kind).values()))
    if any(type(one) is FunctionType and is_program_file(one.__code__.co_filename) for one in functions):
        return True
    return is_program_file(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")


def _function_of(member: Any) -> Any:
    """Return the function of a class method, a property or a cached method; of anything else, itself."""
    if isinstance(member, (classmethod, staticmethod)):
        return member.__func__
    if type(member) is property:
        return member.fget
    return member.__wrapped__ if type(member).__name__ == LRU_CACHE else member


def _values(held: dict[Any, Any]) -> list[Any]:
    if len(held) <= _MAX_ITEMS:
        return list(dict.values(held))
    half = _MAX_ITEMS // 2
    values = dict.values(held)
    return [*islice(values, half), *islice(reversed(values), half)]


def _some(items: Any) -> Iterable[Any]:
    # Of the classes themselves: what the program has in their place does not run.
    kind = next(one for one in CONTAINERS if issubclass(type(items), one))
    plain: Any = kind
    if plain.__len__(items) <= _MAX_ITEMS or kind in (set, frozenset):
        return list(islice(plain.__iter__(items), _MAX_ITEMS))
    half = _MAX_ITEMS // 2
    if kind is deque:
        return [*islice(deque.__iter__(items), half), *islice(deque.__reversed__(items), half)]
    return [*plain.__getitem__(items, slice(half)), *plain.__getitem__(items, slice(-half, None))]


def _has_slots(kind: type) -> bool:
    return any("__slots__" in vars(one) for one in kind.__mro__)


def _from_function(function: FunctionType) -> list[Any]:
    if is_own_file(function.__code__.co_filename):
        return []
    cells = [content_of(cell) for cell in function.__closure__ or ()]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*cells, *defaults, *function.__dict__.values()]


def _from_class(kind: type) -> list[Any]:
    return list(vars(kind).values()) if is_class_of_program(kind) else []


def _from_exception(error: BaseException) -> list[Any]:
    chained = (error.__traceback__, error.__cause__, error.__context__)
    return [*chained, *error.args, *attributes_of(error).values()]


def _from_other(held: Any) -> list[Any]:
    kind = type(held)
    return [one for one in gc.get_referents(held) if one is not kind and type(one) is not FrameType]
