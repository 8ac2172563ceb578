"""Small faults of one expression: each function yields (start, end, new text), offsets in bytes of the file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.mutants.known_names import KnownNames
from tests.mutants.source import Place, Source

Change = tuple[int, int, str]

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "//"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.Pow: (r"\*\*", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: (r"\|", "&"),
}
EMPTY = {"list": "[]", "dict": "{}", "tuple": "()", "Sequence": "()", "int": "0", "str": "''"}
"""What a function may return in place of its result, by the beginning of its return type."""
NOT_TESTED = frozenset({"strict", "kind"})
"""Keywords that stay as they are: `strict` of `zip` is an assertion, and in which order an unstable sort leaves equals
is no rule that a test could hold it to."""
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}


def _between(source: Source, left: ast.expr, right: ast.expr, pattern: str, new: str) -> Iterator[Change]:
    start, end = source.end(left), source.start(right)
    found = re.search(pattern.encode(), source.text[start:end])
    if found:
        yield start + found.start(), start + found.end(), new


def comparisons(source: Source, node: ast.expr) -> Iterator[Change]:
    """Move a boundary by one, or turn a comparison around."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for left, op, right in zip(sides, node.ops, node.comparators, strict=False):
            yield from _between(source, left, right, *COMPARISONS[type(op)])


def arithmetic(source: Source, node: ast.expr) -> Iterator[Change]:
    """Put another operator in place of an arithmetic one."""
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_text(node) and not _is_times_one(node):
        yield from _between(source, node.left, node.right, *ARITHMETIC[type(node.op)])


def _is_times_one(node: ast.BinOp) -> bool:
    """Return whether a truth value becomes a number so, by `* 1`: `// 1` does the same."""
    return isinstance(node.op, ast.Mult) and isinstance(node.right, ast.Constant) and node.right.value == 1


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
        for side in (node.left, node.right)
    )


def booleans(source: Source, node: ast.expr) -> Iterator[Change]:
    """Turn `and` into `or` and back; leave a `not` out."""
    if isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from _between(source, left, right, old, new)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield source.start(node), source.start(node.operand), ""


def constants(source: Source, node: ast.expr) -> Iterator[Change]:
    """Add one to a number; turn a truth value around."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield source.start(node), source.end(node), str(not node.value)
        elif isinstance(node.value, int | float):
            yield source.start(node), source.end(node), str(node.value + 1)


def opposites(source: Source, node: ast.expr) -> Iterator[Change]:
    """Swap min and max, any and all."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        if name in OPPOSITES:
            yield source.end(node.func) - len(name), source.end(node.func), OPPOSITES[name]


def dropped_keywords(source: Source, node: ast.expr, known: KnownNames) -> Iterator[Change]:
    """Leave out a keyword argument that the call can do without."""
    if not isinstance(node, ast.Call):
        return
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    arguments = sorted([*node.args, *node.keywords], key=source.start)
    for position, argument in enumerate(arguments):
        if not isinstance(argument, ast.keyword) or argument.arg in {None, *NOT_TESTED, *known.required.get(name, ())}:
            continue
        if position + 1 < len(arguments):
            yield source.start(argument), source.start(arguments[position + 1]), ""
        elif position:
            yield source.end(arguments[position - 1]), source.end(argument), ""
        else:
            yield source.start(argument), source.end(argument), ""


def sibling_fields(source: Source, node: ast.expr, place: Place, known: KnownNames) -> Iterator[Change]:
    """Read another field of the same type: what makes a column show another figure."""
    if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
        return
    sibling = known.sibling(_class_of(node.value, place), node.attr)
    if sibling is not None:
        yield source.end(node) - len(node.attr), source.end(node), sibling


def _class_of(value: ast.expr, place: Place) -> str | None:
    if not isinstance(value, ast.Name) or place.function is None:
        return None
    if value.id == "self":
        return place.class_name
    arguments = place.function.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        if argument.arg == value.id and argument.annotation is not None:
            return ast.unparse(argument.annotation).removesuffix(" | None").split(".")[-1]
    return None


def statements(source: Source, place: Place) -> Iterator[Change]:
    """Leave a statement out, return nothing, or turn a bare condition around."""
    node = place.node
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Continue() | ast.Break():
            yield source.start(node), source.end(node), "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) if place.function is not None:
            yield source.start(node), source.end(node), "pass"
        case ast.Return(value=ast.expr() as value):
            empty = _empty(place)
            if ast.unparse(value) not in {"None", empty}:
                yield source.start(value), source.end(value), empty
        case ast.If(test=(ast.Name() | ast.Attribute() | ast.Call()) as test):
            yield source.start(test), source.end(test), f"not {source.segment(test)}"


def _empty(place: Place) -> str:
    returns = ast.unparse(place.function.returns) if place.function is not None and place.function.returns else ""
    for start, empty in EMPTY.items():
        if returns.startswith(start):
            return empty
    return "None"
