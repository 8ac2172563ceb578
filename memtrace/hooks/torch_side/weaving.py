"""Callbacks that are woven into the code of a function of torch, so that it stays the function that it was.

A wrapper is another function: it shows in `inspect`, takes a frame of the stack, and is what torch's compilers meet. So
the code of torch's own function is replaced by one made from its source, in which the callbacks are called:

    if torch.compiler.is_compiling():
        the body                          what a compiler reads, and nothing of ours
    else:
        before(...)
        try:
            the body
        finally:
            after(...)

File, lines, columns, signature, name and identity are those of before, and no frame is added. That the source is the
one that runs is proved first: compiled as it is, it must give the code that is there.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from memtrace.hooks.parts.as_imported import open_file

Callback = Callable[..., None]

_BEFORE, _AFTER = "memtrace: before", "memtrace: after"
"""Constants in whose places the callbacks are put: code cannot be compiled with a function as a constant."""
_RESULT = "_memtrace_result"
_FRAME = """
if torch.compiler.is_compiling():
    pass
else:
    _memtrace_result = None
    _memtrace_callback = "memtrace: before"
    _memtrace_callback()
    try:
        pass
    finally:
        _memtrace_callback = "memtrace: after"
        _memtrace_callback()
"""
_FUTURE_FLAGS = sum({getattr(__future__, name).compiler_flag for name in __future__.all_feature_names})
_LOCAL = "<locals>"
_DECLARATIONS = (ast.Global, ast.Nonlocal)
_IMPORT = re.compile(r"^(?P<of>from +[\w.]+ +)?import +(?:\((?P<several>[^)]*)\)|(?P<names>[^(\n]*))", re.MULTILINE)
_COMMENT = re.compile(r"#.*")
_COMPARED = (
    *("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_firstlineno", "co_flags"),
    *("co_argcount", "co_posonlyargcount", "co_kwonlyargcount"),
)
_NOT_PLAIN = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


class Woven:
    """A function, its own code, and the one with the callbacks in it."""

    def __init__(self, function: FunctionType, code: CodeType) -> None:
        self._function = function
        self._original = function.__code__
        self._code = code

    def put_in(self) -> None:
        """Let the function call the callbacks; a code that the program has given it stays."""
        if self._function.__code__ is self._original:
            self._function.__code__ = self._code

    def take_out(self) -> None:
        """Let it call none."""
        if self._function.__code__ is self._code:
            self._function.__code__ = self._original


def weave(
    function: Any,
    before: Callback | None,
    after: Callback | None,
    *,
    given: Sequence[str] | None = None,
    with_result: bool = False,
) -> Woven | None:
    """Return a function of torch with callbacks, not put in yet; `None` where its source is not what runs.

    Both are called with its arguments, `before` before its body and `after` in any case when that has ended; or with
    the variables that `given` names. With `with_result`, `after` is told last what it returns, `None` if it raises.
    Callbacks must be guarded already: they return nothing and raise nothing of their own.
    """
    innermost = inspect.unwrap(function) if callable(function) else function
    if not isinstance(innermost, FunctionType) or innermost.__code__.co_flags & _NOT_PLAIN:
        return None
    original = innermost.__code__
    try:
        definition = _Definition(innermost)
        if not definition.is_what_runs():
            return None
        calls = _Calls(
            has_before=before is not None,
            has_after=after is not None,
            given=given,
            with_result=with_result,
            may_be_compiled=innermost.__globals__.get("torch") is sys.modules.get("torch", ""),
        )
        code = definition.compiled(lambda node, again: calls.put_around(node, again, original))
    except (OSError, SyntaxError, ValueError, LookupError, TypeError):
        return None
    if code.co_freevars != original.co_freevars:
        return None
    callbacks = {_BEFORE: before, _AFTER: after}
    constants = tuple(callbacks.get(one, one) if isinstance(one, str) else one for one in code.co_consts)
    return Woven(innermost, code.replace(co_consts=constants))


class _Definition:
    """The source of one function, in a text in which it stands at its own lines and columns."""

    def __init__(self, function: FunctionType) -> None:
        self._code = function.__code__
        with open_file(self._code.co_filename, encoding="utf-8") as file:
            lines = file.readlines()
        first = self._code.co_firstlineno - 1
        block = inspect.getblock(lines[first:])
        headers = self._headers(function.__qualname__, len(block[0]) - len(block[0].lstrip()))
        imported = _imported_names("".join(lines)).intersection(self._code.co_names)
        self._depth = len(headers)
        imports = f"import {', '.join(sorted(imported or {'torch'}))}\n"
        self._text = "".join(["\n" * (first - len(headers) - 1), imports, *headers, *block])

    def _headers(self, qualname: str, indentation: int) -> list[str]:
        """Return a line for each class or function that it stands in, which gives it its names."""
        *around, _name = qualname.split(".")
        headers: list[str] = []
        for index, name in enumerate(around):
            if name == _LOCAL:
                continue
            start = " " * len(headers)
            if around[index + 1 : index + 2] == [_LOCAL]:
                own = ", ".join(one for one in self._code.co_freevars if one != "__class__")
                headers.append(f"{start}def {name}({own}):\n")
            else:
                headers.append(f"{start}class {name}:\n")
        if indentation and not headers:
            headers = ["if 1:\n"]
        if len(headers) > indentation:
            raise ValueError(qualname)
        return headers

    def is_what_runs(self) -> bool:
        """Whether it compiles to the code that the function has."""
        plain = self.compiled(lambda _node, _again: None)
        same = all(getattr(plain, name) == getattr(self._code, name) for name in _COMPARED)
        return same and list(plain.co_lines()) == list(self._code.co_lines())

    def compiled(self, change: Callable[[ast.FunctionDef, ast.FunctionDef], None]) -> CodeType:
        """Return the code of the function, changed by one that is given it twice.

        Raises LookupError where the text holds no such function.
        """
        tree, found = self._parsed()
        change(found, self._parsed()[1])
        flags = self._code.co_flags & _FUTURE_FLAGS
        whole = compile(tree, self._code.co_filename, "exec", flags=flags, dont_inherit=True)
        return next(code for code in _codes_in(whole) if self._is_named(code))

    def _parsed(self) -> tuple[ast.Module, ast.FunctionDef]:
        tree = ast.parse(self._text, self._code.co_filename)
        found: Any = tree
        for _ in range(self._depth + 1):
            found = found.body[-1]
        if not isinstance(found, ast.FunctionDef) or found.name != self._code.co_name:
            raise LookupError(self._code.co_name)
        return tree, found

    def _is_named(self, code: CodeType) -> bool:
        return code.co_name == self._code.co_name and code.co_firstlineno == self._code.co_firstlineno


def _imported_names(text: str) -> set[str]:
    """Return the names that a module imports: methods of those are called by other instructions than of others."""
    names: set[str] = set()
    for found in _IMPORT.finditer(text):
        for one in _COMMENT.sub("", found["several"] or found["names"]).split(","):
            name = one.split(" as ")[-1].strip()
            names.add(name if found["of"] else name.partition(".")[0])
    return names


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes_in(constant)


@dataclass(frozen=True)
class _Calls:
    """Which calls are put around a body."""

    has_before: bool
    has_after: bool
    given: Sequence[str] | None
    with_result: bool
    may_be_compiled: bool
    """Whether the function knows torch; a compiler reads no other of those that callbacks are woven into."""

    def put_around(self, node: ast.FunctionDef, again: ast.FunctionDef, code: CodeType) -> None:
        """Put them around the body of a function, which is given twice. Affects: `node`, `again`.

        Raises LookupError where that cannot be.
        """
        num_first = 1 if ast.get_docstring(node, clean=False) is not None else 0
        self._check(node.body[num_first:], code)
        # Said once, before both bodies.
        first = node.body[:num_first] + [one for one in node.body if isinstance(one, _DECLARATIONS)]
        body, same = (
            [one for one in each.body[num_first:] if not isinstance(one, _DECLARATIONS)] for each in (node, again)
        )
        frame = ast.parse(_FRAME).body[0]
        assert isinstance(frame, ast.If)
        self._give_arguments(frame.orelse, node.args)
        for one in ast.walk(frame):
            ast.copy_location(one, body[0])
        frame.body = list(same)
        frame.orelse = self._statements(frame.orelse, body)
        node.body = [*first, *([frame] if self.may_be_compiled else frame.orelse)]

    def _check(self, body: list[ast.stmt], code: CodeType) -> None:
        nodes = list(_own_nodes(body))
        deleted = {one.id for one in nodes if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Del)}
        is_declared_inside = any(isinstance(one, _DECLARATIONS) and one not in body for one in nodes)
        needed = set(self.given or code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 2])
        known = {*code.co_varnames, *code.co_cellvars}
        if is_declared_inside or needed & deleted or not set(self.given or ()) <= known:
            raise LookupError(code.co_name)

    def _give_arguments(self, frame: list[ast.stmt], arguments: ast.arguments) -> None:
        *_, called, tried = frame
        assert isinstance(tried, ast.Try)
        names = _all_arguments(arguments) if self.given is None else [_read(name) for name in self.given]
        keywords = _keyword_arguments(arguments) if self.given is None else []
        _give(called, names, keywords)
        _give(tried.finalbody[1], [*names, _read(_RESULT)] if self.with_result else names, keywords)

    def _statements(self, frame: list[ast.stmt], body: list[ast.stmt]) -> list[ast.stmt]:
        start, assigned, called, tried = frame
        assert isinstance(tried, ast.Try)
        tried.body = _Returns().all_of(body) if self.with_result else body
        return [
            *([start] if self.with_result else []),
            *([assigned, called] if self.has_before else []),
            *([tried] if self.has_after else tried.body),
        ]


def _give(statement: ast.stmt, names: list[ast.expr], keywords: list[ast.keyword]) -> None:
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    statement.value.args, statement.value.keywords = names, keywords


def _read(name: str) -> ast.expr:
    return ast.Name(id=name, ctx=ast.Load())


def _all_arguments(arguments: ast.arguments) -> list[ast.expr]:
    found = [_read(one.arg) for one in (*arguments.posonlyargs, *arguments.args)]
    rest = arguments.vararg
    return found if rest is None else [*found, ast.Starred(value=_read(rest.arg), ctx=ast.Load())]


def _keyword_arguments(arguments: ast.arguments) -> list[ast.keyword]:
    found = [ast.keyword(arg=one.arg, value=_read(one.arg)) for one in arguments.kwonlyargs]
    rest = arguments.kwarg
    return found if rest is None else [*found, ast.keyword(arg=None, value=_read(rest.arg))]


def _own_nodes(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yield what stands in a function itself, and not in those that it defines."""
    for node in body:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _own_nodes(list(ast.iter_child_nodes(node)))


class _Returns(ast.NodeTransformer):
    """Lets each `return` of a function keep what it returns."""

    def all_of(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        return [self.visit(one) for one in body]

    def visit_Return(self, node: ast.Return) -> ast.Return:
        value = node.value or ast.copy_location(ast.Constant(value=None), node)
        target = ast.Name(id=_RESULT, ctx=ast.Store())
        kept = ast.NamedExpr(target=ast.copy_location(target, value), value=value)
        node.value = ast.copy_location(kept, value)
        return node

    def _leave_alone(self, node: Any) -> Any:
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = _leave_alone
