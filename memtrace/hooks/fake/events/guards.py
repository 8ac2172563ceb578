"""What a program does with a value that only data can tell: raises, goes round once more, or neither.

In: the frame that reads a value of the GPU. Out: the answer by which the program goes on: a check passes, a loop ends.
Read from the program's own source, by the place of the instruction that runs.
"""

from __future__ import annotations

import ast
import dis
import linecache
from dataclasses import dataclass, replace
from types import FrameType

RAISES = "a check that guards an error was taken to pass"
"""What is noted where a program would have raised."""
LOOPS = "a loop on a value of the GPU was taken to end"
"""What is noted where a program would have gone round once more."""

_ROUNDS = 2
"""Times that a loop on data is gone through: what its body makes is seen, and what the second round still holds."""
_BREAKS_AFTER = 100
"""Times that a loop without an end of its own may ask whether it is to break."""
_MOST_CALLERS = 4
_MOST_INSTRUCTIONS = 12
"""As far back as what a jump tests was made, with the empty places that an instruction leaves."""
_LARGE = 2**31 - 1
_ENDS = frozenset({"exit", "_exit", "abort", "quit", "fail"})
_CHECKS = ("check", "assert", "require", "ensure")
_ABOVE = (ast.Gt, ast.GtE)
_BELOW = (ast.Lt, ast.LtE)
_FIELD = "memtrace_parent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a value should be, as the program uses it."""

    why: str
    """`RAISES` or `LOOPS`."""
    truth: bool
    """What the value, or what it is compared with, should come out as."""
    compared: ast.Compare | None = None
    """The comparison that the value, a number, is in."""
    is_left: bool = True
    """Whether it stands at the left of it."""
    rounds: int = 0
    """Times that a loop may go on before."""

    def number(self, plain: float) -> float:
        """Return a number by which the comparison comes out so: the plain one if it does, as far as can be seen."""
        if self.compared is None:
            return plain if self.truth else type(plain)(0)
        operator, other = self.compared.ops[0], self.compared.comparators[0] if self.is_left else self.compared.left
        literal = _literal(other)
        if isinstance(operator, (ast.Eq, ast.NotEq)):
            wants_equal = self.truth is isinstance(operator, ast.Eq)
            return plain if literal is None or not wants_equal else type(plain)(literal)
        if not isinstance(operator, _ABOVE + _BELOW):
            return plain
        wants_more = self.truth is (isinstance(operator, _ABOVE) is self.is_left)
        if literal is not None:
            return type(plain)(literal + 1 if wants_more else min(0, literal - 1))
        return (type(plain)(_LARGE) if self.why == LOOPS else plain) if wants_more else type(plain)(0)


class Guards:
    """Answers for the places of a program, with how often its loops were gone through."""

    def __init__(self) -> None:
        self._trees: dict[str, dict[tuple[int, ...], ast.AST]] = {}
        self._last: tuple[int, int] = (0, 0)
        self._rounds = 0

    def wanted(self, frame: FrameType | None) -> Wanted | None:
        """Return what should come of the value that this frame reads; None where nothing hangs on it."""
        for _ in range(_MOST_CALLERS):
            node = None if frame is None else self._node(frame)
            if frame is None or node is None:
                return None
            found = _use_of(node)
            if found is not None:
                return found if found.why == RAISES else self._looped(found, (id(frame), id(node)))
            if not _is_returned(node):
                return None
            frame = frame.f_back
        return None

    def _looped(self, found: Wanted, place: tuple[int, int]) -> Wanted:
        self._rounds = self._rounds + 1 if place == self._last else 1
        self._last = place
        if self._rounds <= found.rounds:
            return replace(found, truth=not found.truth)
        # The next frame may lie where this one did.
        self._last = (0, 0)
        return found

    def _node(self, frame: FrameType) -> ast.AST | None:
        file = frame.f_code.co_filename
        if file not in self._trees:
            self._trees[file] = _tree(file)
        node = next((self._trees[file][at] for at in _positions(frame) if at in self._trees[file]), None)
        while isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            # What is read is what is negated.
            node = node.operand
        return node


def _positions(frame: FrameType) -> list[tuple[int, ...]]:
    """Return where the expression may stand whose value is read: at the instruction that runs, or those before it.

    Where a jump stands says nothing: what it tests was made by the instructions before.
    """
    positions = getattr(frame.f_code, "co_positions", None)
    if positions is None:  # before Python 3.11
        return [(frame.f_lineno,)]
    known = [tuple(-1 if one is None else one for one in position) for position in positions()]
    is_jump = "JUMP" in dis.opname[frame.f_code.co_code[frame.f_lasti]]
    return known[max(frame.f_lasti // 2 - is_jump, 0) :: -1][:_MOST_INSTRUCTIONS]


def _tree(file: str) -> dict[tuple[int, ...], ast.AST]:
    """Return the expressions of a file by place, each of which knows its parent; none if it has no source."""
    found: dict[tuple[int, ...], ast.AST] = {}
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError):
        return found
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            setattr(child, _FIELD, parent)
            # Of `a and not b` only `a` and `b` are read.
            if isinstance(child, ast.expr) and not isinstance(child, (ast.BoolOp, ast.UnaryOp)):
                # Of expressions at one place, the innermost comes last.
                found[(child.lineno, child.end_lineno or 0, child.col_offset, child.end_col_offset or 0)] = child
        test = getattr(parent, "test", None)
        if test is not None:
            found[(test.lineno,)] = test
    return found


def _parent(node: ast.AST) -> ast.AST | None:
    parent: ast.AST | None = getattr(node, _FIELD, None)
    return parent


def _use_of(node: ast.AST) -> Wanted | None:
    """Return what should come of an expression, by the statement that it decides."""
    same, compared, is_left = True, None, True
    parent = _parent(node)
    while isinstance(parent, ast.expr):
        if isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.Not):
            same = not same
        elif isinstance(parent, ast.Compare) and len(parent.ops) == 1 and compared is None:
            compared, is_left = parent, parent.left is node
        elif _is_check(parent, node):
            return Wanted(why=RAISES, truth=same, compared=compared, is_left=is_left)
        elif not _keeps_truth(parent, node):
            return None
        node, parent = parent, _parent(parent)
    if isinstance(parent, (ast.Assign, ast.AnnAssign)) and compared is None:
        return _use_of_name(parent, same)
    found = _decided(parent, node)
    # A negation outside of a comparison turns its truth round as well.
    return found and replace(found, truth=found.truth is same, compared=compared, is_left=is_left)


def _keeps_truth(call: ast.expr, node: ast.AST) -> bool:
    """Return whether an expression around a value is as true as it: `bool(x)`, `x.all()`, `x.item`."""
    if isinstance(call, (ast.BoolOp, ast.NamedExpr, ast.IfExp)):
        return not (isinstance(call, ast.IfExp) and call.test is node)
    if isinstance(call, ast.Attribute):
        return call.attr in ("all", "any", "item")
    if not isinstance(call, ast.Call):
        return False
    if call.func is node:
        return True
    return node in call.args and _called(call) in ("bool", "int", "float", "all", "any", "item")


def _is_check(call: ast.expr, node: ast.AST) -> bool:
    """Return whether an expression is a call such as `torch._check(x)`, which raises where its argument is not true."""
    return isinstance(call, ast.Call) and node in call.args and _called(call).lstrip("_").startswith(_CHECKS)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else str(getattr(call.func, "id", ""))


def _decided(statement: ast.AST | None, test: ast.AST) -> Wanted | None:
    """Return how the test of a statement should come out."""
    if isinstance(statement, ast.Assert) and statement.test is test:
        return Wanted(why=RAISES, truth=True)
    if isinstance(statement, ast.While) and statement.test is test:
        return Wanted(why=LOOPS, truth=False, rounds=_ROUNDS)
    if isinstance(statement, ast.If) and statement.test is test:
        if _raises(statement.body):
            return Wanted(why=RAISES, truth=False)
        if _raises(statement.orelse):
            return Wanted(why=RAISES, truth=True)
        if any(isinstance(one, ast.Break) for one in statement.body) and isinstance(_loop_of(statement), ast.While):
            return Wanted(why=LOOPS, truth=True, rounds=_BREAKS_AFTER)
    return None


def _raises(body: list[ast.stmt]) -> bool:
    return any(isinstance(one, ast.Raise) or _is_end(one) for one in body)


def _is_end(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return False
    return _called(call) in _ENDS


def _loop_of(node: ast.AST | None) -> ast.AST | None:
    while node is not None and not isinstance(node, (ast.While, ast.For, ast.FunctionDef, ast.Module)):
        node = _parent(node)
    return node


def _use_of_name(assigned: ast.Assign | ast.AnnAssign, same: bool) -> Wanted | None:
    """Return what should come of a value that is given a name, by the first statement below that decides by it."""
    targets = assigned.targets if isinstance(assigned, ast.Assign) else [assigned.target]
    names = {one.id for one in targets if isinstance(one, ast.Name)}
    block = _parent(assigned)
    for later in ast.walk(block) if block is not None and names else ():
        test = getattr(later, "test", None)
        if test is None or getattr(later, "lineno", 0) <= assigned.lineno:
            continue
        for name in ast.walk(test):
            if isinstance(name, ast.Name) and name.id in names:
                found = _use_of(name)
                return found and replace(found, truth=found.truth is same)
    return None


def _is_returned(node: ast.AST) -> bool:
    """Return whether a value is what its function returns, so that the caller decides by it."""
    parent = _parent(node)
    while isinstance(parent, ast.expr) and _keeps_truth(parent, node):
        node, parent = parent, _parent(parent)
    return isinstance(parent, ast.Return)


def _literal(node: ast.expr) -> float | None:
    try:
        found = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return None
    return found if isinstance(found, (int, float)) else None
