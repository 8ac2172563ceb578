"""A Python file as its bytes and its tree, and which of its statements faults may be put into."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef
LOGGING = frozenset({"debug", "info", "warning", "warn", "error", "exception", "log"})


@dataclass(frozen=True)
class Source:
    """One file: `path` relative to the checkout, with slashes."""

    path: str
    text: bytes

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> list[bytes]:
        """The lines with their ends."""
        return self.text.splitlines(keepends=True)

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for line in self.lines:
            starts.append(starts[-1] + len(line))
        return starts

    def start(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        """Return where a node begins, in bytes."""
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        """Return where a node ends, in bytes."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def line_of(self, offset: int) -> int:
        """Return the number of the line that holds a byte."""
        return self.text.count(b"\n", 0, offset) + 1

    def segment(self, node: ast.expr) -> str:
        """Return the text of a node."""
        return self.text[self.start(node) : self.end(node)].decode()


@dataclass(frozen=True, kw_only=True)
class Place:
    """A statement without the statements inside it."""

    node: ast.stmt
    first: int
    last: int
    """Its own lines, both included; those of an `if` end before its body."""
    defines: str | None
    """The name it gives a meaning to, where it runs when the module is imported; None within functions."""
    function: Function | None
    class_name: str | None


def places(tree: ast.Module) -> Iterator[Place]:
    """Yield every statement that may hold a fault."""
    yield from _places(tree.body, None, None)


def _places(body: list[ast.stmt], function: Function | None, klass: str | None) -> Iterator[Place]:
    for node in body:
        if _is_left_out(node):
            continue
        inner = [child for name in ("body", "orelse", "finalbody") for child in getattr(node, name, [])]
        inner += [child for handler in getattr(node, "handlers", []) for child in handler.body]
        inner += [child for case in getattr(node, "cases", []) for child in case.body]
        last = min((child.lineno for child in inner), default=(node.end_lineno or node.lineno) + 1) - 1
        yield Place(
            node=node,
            first=node.lineno,
            last=max(last, node.lineno),
            defines=None if function else (klass or _defined(node)),
            function=function,
            class_name=klass,
        )
        if isinstance(node, FUNCTIONS):
            yield from _places(inner, node, klass)
        elif isinstance(node, ast.ClassDef):
            yield from _places(inner, function, node.name)
        else:
            yield from _places(inner, function, klass)


def _is_left_out(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Raise() | ast.Assert() | ast.Expr(value=ast.Constant()):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name))):
            return name in LOGGING
    return False


def _defined(node: ast.stmt) -> str | None:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case ast.Assign(targets=[ast.Tuple(elts=[*_, ast.Name(id=name)])]):
            # Of several names the last one stands for all.
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
    return None


def expressions(node: ast.stmt) -> Iterator[ast.expr]:
    """Yield the outermost expressions of a statement that run: no annotations, no decorators, no inner statements."""
    if isinstance(node, FUNCTIONS):
        yield from node.args.defaults
        yield from (default for default in node.args.kw_defaults if default is not None)
        return
    if isinstance(node, ast.ClassDef):
        return
    for name, value in ast.iter_fields(node):
        if name == "annotation":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.expr):
                yield child
            elif isinstance(child, ast.withitem):
                yield child.context_expr
            elif isinstance(child, ast.match_case) and child.guard is not None:
                yield child.guard


def nodes_of(source: Source, expression: ast.expr) -> Iterator[ast.expr]:
    """Yield an expression and those inside it.

    Before Python 3.12 the position of what stands in an f-string is not reliable: such a node is left out where the
    text at its position is another.
    """
    texts = [node for node in ast.walk(expression) if isinstance(node, ast.JoinedStr)]
    in_text = {inner for text in texts for inner in ast.walk(text) if inner is not text}
    formats = [node.format_spec for node in in_text if isinstance(node, ast.FormattedValue) and node.format_spec]
    in_format = {inner for spec in formats for inner in ast.walk(spec)}
    for node in ast.walk(expression):
        if not isinstance(node, ast.expr) or node in in_format:
            continue
        if node in in_text and source.segment(node) != ast.unparse(node):
            continue
        yield node
