"""The line of a program that puts things into a container or a variable, read from its compiled code.

A name that is fed in several lines has no such line: which of them it was is not to be told.
"""

from __future__ import annotations

import dis
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import takewhile
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from memtrace.hooks.keepers.program_frames import Place, is_program_file

_FEEDERS = frozenset(
    {
        "append",
        "appendleft",
        "extend",
        "extendleft",
        "insert",
        "add",
        "update",
        "setdefault",
        "put",
        "put_nowait",
        "push",
    }
)
_FED_OBJECTS = _FEEDERS | {"forward", "log", "record", "step", "store", "collect", "observe", "write", "add_batch"}
"""Methods that put into an object what the program gives them."""
_EMPTY = frozenset({"list", "dict", "set", "deque", "defaultdict", "OrderedDict", "Counter", "Queue"})
_MAX_BETWEEN = 6
"""Instructions between a name and the method of what it names: an index, an attribute."""
_MAX_CODES = 400
_COPIES = frozenset({"COPY", "DUP_TOP"})
_SWAPS = frozenset({"SWAP", "ROT_TWO"})
_BUILDS = frozenset({"BUILD_LIST", "BUILD_MAP", "BUILD_SET"})
_MOVES = frozenset({"SWAP", "ROT_THREE"})


OWN = "<the object of a method>"
"""As a variable: the first argument of a method, `self` in most."""


class Named(NamedTuple):
    """What is looked for in code: a variable, an attribute of it, and whether things are put into it or it is bound."""

    variable: str
    attribute: str | None
    is_container: bool


def feeding_line(codes: Iterable[CodeType], named: Named, now: Place | None = None) -> Place | None:
    """Return the one line of some code, and of what is defined in it, that feeds what is named.

    Of several it is the line that runs `now`. Where some line puts things into it, the line that makes it is none.
    """
    found: dict[int, set[Place]] = {}
    for code in codes:
        for rank, place in _fed_in(code, named):
            found.setdefault(rank, set()).add(place)
    return _the_one(found[min(found)], now) if found else None


def using_line(codes: Iterable[CodeType], variable: str, now: Place | None = None) -> Place | None:
    """Return the one line that calls an object of a library, or a method that puts something into it."""
    return _the_one({place for code in codes for place in _used_in(code, variable)}, now)


def _the_one(found: set[Place], now: Place | None) -> Place | None:
    if now in found:
        return now
    return found.pop() if len(found) == 1 else None


def returning_line(function: Any) -> Place | None:
    """Return the one line in which a function of the program returns, or the line where it begins."""
    code = getattr(function, "__code__", None)
    if code is None or not is_program_file(code.co_filename):
        return None
    lines = {line for line, group in _lines(code) if any(one.opname.startswith("RETURN_") for one in group)}
    line = lines.pop() if len(lines) == 1 else code.co_firstlineno
    return Place(code.co_filename, line, _name(code))


def methods_of(kind: type) -> Iterator[CodeType]:
    """Yield the code of the methods of a class and those that it inherits from, of the program's own classes."""
    for one in kind.__mro__:
        for value in vars(one).values():
            function = getattr(value, "__func__", getattr(value, "fget", value))
            if isinstance(function, FunctionType) and is_program_file(function.__code__.co_filename):
                yield function.__code__


def functions_in(variables: dict[str, Any]) -> Iterator[CodeType]:
    """Yield the code of the functions, and of the methods of the classes, that a module of the program defines."""
    name = variables.get("__name__")
    num_seen = 0
    for value in list(variables.values()):
        if num_seen >= _MAX_CODES:
            return
        if isinstance(value, FunctionType) and value.__module__ == name:
            num_seen += 1
            yield value.__code__
        elif isinstance(value, type) and value.__module__ == name:
            for code in methods_of(value):
                num_seen += 1
                yield code


def _fed_in(code: CodeType, named: Named) -> Iterator[tuple[int, Place]]:
    if not is_program_file(code.co_filename):
        return
    if named.variable == OWN:
        named = named._replace(variable=code.co_varnames[0] if code.co_argcount else "")
    for one in _with_inner(code):
        is_known = named.variable in (*one.co_names, *one.co_varnames, *one.co_cellvars, *one.co_freevars)
        if is_known and (named.attribute is None or named.attribute in one.co_names):
            rank, lines = _feeding_lines(one, named)
            yield from ((rank, Place(one.co_filename, line, _name(one))) for line in lines)


def _feeding_lines(code: CodeType, named: Named) -> tuple[int, list[int]]:
    """Return the lines of a function that feed what is named, and in which way, the surest first."""
    if named.is_container:
        fed = [line for line, group in _lines(code) if _feeds(group, named)]
        if fed:
            return 0, fed
    bound = [(line, group) for line, group in _lines(code) if _binds(group, named)]
    # `total = total + loss` makes it grow, `total = 0` does not.
    again = [line for line, group in bound if any(_loads(group, at, named) for at in range(len(group)))]
    if again:
        return 1, again
    is_empty = _is_constant if named.attribute is None else _is_plain
    return 2, [line for line, group in bound if not is_empty(group)]


def _feeds(group: list[dis.Instruction], named: Named) -> bool:
    for at in range(len(group)):
        if not _loads(group, at, named):
            continue
        following = group[at + 1 : at + 2 + _MAX_BETWEEN]
        if any(one.opname in ("LOAD_METHOD", "LOAD_ATTR") and _attribute(one) in _FEEDERS for one in following):
            return True
        if _is_stored_into(group, at, named):
            return True
        if any(_is_in_place(one) for one in following) and _binds(group, named):
            return True
    return False


def _is_stored_into(group: list[dis.Instruction], at: int, named: Named) -> bool:
    """Return whether a line puts something at an index of what it loads there, as `losses[k] = loss` does, or adds to
    what stands there.

    Values are counted on Python's stack above what was loaded, which nothing has taken while there are some.
    """
    names = _loaded(group[at])
    above = len(names) - 1 - names.index(named.variable)
    if named.attribute is not None:
        at = next(one for one in range(at + 1, len(group)) if group[one].opname in ("LOAD_ATTR", "LOAD_METHOD"))
    for before, one in zip(group[at:], group[at + 1 :], strict=False):
        if one.opname == "STORE_SUBSCR":
            # What is added to is moved below the value: container and index were loaded before it.
            return above == (2 if before.opname in _MOVES else 1)
        above += dis.stack_effect(one.opcode, one.arg)
        # In the place of what is looked into stands what was found there: `self.losses["a"][k] = loss`.
        if above < (0 if _is_index(one) else 1):
            return False
    return False


def _used_in(code: CodeType, variable: str) -> Iterator[Place]:
    if not is_program_file(code.co_filename):
        return
    for one in _with_inner(code):
        for line, group in _lines(one):
            if any(_uses(group, at, variable) for at in range(len(group))):
                yield Place(one.co_filename, line, _name(one))


def _uses(group: list[dis.Instruction], at: int, variable: str) -> bool:
    if not _loads(group, at, Named(variable, None, False)):
        return False
    following = next((one for one in group[at + 1 :] if one.opname not in ("PUSH_NULL", "PRECALL", "CACHE")), None)
    if following is None:
        return False
    if following.opname in ("LOAD_METHOD", "LOAD_ATTR"):
        return _attribute(following) in _FED_OBJECTS
    # Called itself: the name comes behind what Python puts before a function.
    return at > 0 and group[at - 1].opname == "PUSH_NULL"


def _loads(group: list[dis.Instruction], at: int, named: Named) -> bool:
    if named.variable not in _loaded(group[at]):
        return False
    if named.attribute is None:
        return True
    # `self.total += loss` keeps the object on the stack, to store into it.
    after = next((one for one in group[at + 1 : at + 3] if one.opname not in _COPIES), None)
    return after is not None and after.opname in ("LOAD_ATTR", "LOAD_METHOD") and _attribute(after) == named.attribute


def _binds(group: list[dis.Instruction], named: Named) -> bool:
    for at, one in enumerate(group):
        if named.attribute is None:
            if named.variable in _stored(one):
                return True
        elif one.opname == "STORE_ATTR" and _attribute(one) == named.attribute:
            if group[at - 1].opname in _SWAPS:
                return any(_loads(group, before, named) for before in range(at))
            return at > 0 and named.variable in _variables(group[at - 1])
    return False


def _loaded(one: dis.Instruction) -> tuple[Any, ...]:
    """Return the variables whose values an instruction puts on the stack."""
    if one.opname == "STORE_FAST_LOAD_FAST":
        return _variables(one)[1:]
    is_load = one.opname.startswith("LOAD_") and one.opname not in ("LOAD_CONST", "LOAD_ATTR", "LOAD_METHOD")
    return _variables(one) if is_load else ()


def _stored(one: dis.Instruction) -> tuple[Any, ...]:
    """Return the variables that an instruction binds."""
    if one.opname == "STORE_FAST_LOAD_FAST":
        return _variables(one)[:1]
    return _variables(one) if one.opname.startswith("STORE_") and one.opname != "STORE_ATTR" else ()


def _variables(one: dis.Instruction) -> tuple[Any, ...]:
    """Return the names that an instruction is about; some of newer versions of Python are about two."""
    return one.argval if isinstance(one.argval, tuple) else (one.argval,)


def _attribute(one: dis.Instruction) -> Any:
    return one.argval[-1] if isinstance(one.argval, tuple) else one.argval


def _is_in_place(one: dis.Instruction) -> bool:
    return one.opname.startswith("INPLACE_") or (one.opname == "BINARY_OP" and one.argrepr.endswith("="))


def _is_index(one: dis.Instruction) -> bool:
    return one.opname == "BINARY_SUBSCR" or one.argrepr == "[]"


def _is_plain(group: list[dis.Instruction]) -> bool:
    """Return whether a line stores something that holds nothing yet in an attribute."""
    # The last line of a function also returns.
    group = list(takewhile(lambda one: one.opname != "STORE_ATTR", group))
    loads = [one for one in group if one.opname.startswith("LOAD_")]
    is_built = any(one.opname in _BUILDS and not one.arg for one in group) and len(loads) == 1
    return is_built or _makes_empty(group) or _is_literal(group)


def _is_literal(group: list[dis.Instruction]) -> bool:
    """Return whether a line stores what stands in it, as `self.features = None` does."""
    loads = [one for one in group if one.opname.startswith("LOAD_")]
    return len(loads) > 1 and all(one.opname == "LOAD_CONST" for one in loads[:-1])


def _is_constant(group: list[dis.Instruction]) -> bool:
    """Return whether a line makes nothing but something plain, or an empty container."""
    if _makes_empty(group):
        return True
    return not any(one.opname.startswith(("CALL", "BINARY", "LOAD_ATTR", "LOAD_METHOD")) for one in group)


def _makes_empty(group: list[dis.Instruction]) -> bool:
    """Return whether a line names a class of containers, as `list()` does."""
    return any(one.opname.startswith("LOAD_") and one.argval in _EMPTY for one in group if type(one.argval) is str)


@lru_cache(maxsize=512)
def _lines(code: CodeType) -> tuple[tuple[int, list[dis.Instruction]], ...]:
    """Return the instructions of each line, in the order in which lines come first."""
    groups: dict[int, list[dis.Instruction]] = {}
    line = code.co_firstlineno
    starts = dict(dis.findlinestarts(code))
    for one in dis.get_instructions(code):
        line = starts.get(one.offset, line) or line
        groups.setdefault(line, []).append(one)
    return tuple(groups.items())


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)


def _name(code: CodeType) -> str:
    return code.co_name
