"""A patch of the program: the changes at the lines where they belong, as `git apply` and `patch -p1` take it.

In: what the program is known to do and where, its files as text, and `Changes`. Out: a unified patch, and the changes
that it leaves to do by hand.
"""

from __future__ import annotations

import ast
import difflib
import re
import textwrap
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from memtrace.forecast.fixing.results import Place, Program
from memtrace.report.answers.fix_code import after_optimizer, before_optimizer, setting_of
from memtrace.schema.changes import Changes

_Edit = tuple[int, int, str]
"""Bytes of a file from and to, and what stands there instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A patch, and what it lacks."""

    text: str
    """The unified patch; empty where no line is known."""
    left: Changes
    """What is to be written by hand."""


def patch_of(changes: Changes, program: Program, sources: Mapping[str, str]) -> Patch:
    """Return the patch of a program whose files are known by path."""
    edits: dict[str, list[_Edit]] = defaultdict(list)
    left = changes
    place = program.optimizers[0] if len(program.optimizers) == 1 else None
    if place is not None and place.path in sources:
        made, left = _at_optimizer(_Source(sources[place.path]), place, changes, program)
        edits[place.path] += made
    if changes.set_to_none and (cleared := _cleared(program, sources)):
        left = replace(left, set_to_none=False)
        for path, made in cleared.items():
            edits[path] += made
    text = "".join(_diff(path, sources[path], made) for path, made in sorted(edits.items()) if made)
    # The environment and the command are no lines of a file.
    return Patch(text=text, left=replace(left, allocator=None, micro_batch=None, accumulation=None))


class _Source:
    """One file: its bytes, and the tree of its statements."""

    def __init__(self, text: str) -> None:
        self.data = text.encode()
        self.tree = ast.parse(self.data)
        self.starts = [0]
        for line in self.data.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def statement(self, line: int) -> ast.stmt | None:
        """Return the innermost statement at a line, if nothing stands before it there."""
        found = [one for one in ast.walk(self.tree) if isinstance(one, ast.stmt) and _holds(one, line)]
        if not found:
            return None
        inner = max(found, key=lambda one: (one.lineno, -(one.end_lineno or 0), one.col_offset))
        start = self.starts[inner.lineno - 1]
        return inner if not self.data[start : start + inner.col_offset].strip() else None

    def call(self, line: int, name: str) -> ast.Call | None:
        """Return the call of a name at a line, if there is just one."""
        found = [
            one
            for one in ast.walk(self.tree)
            if isinstance(one, ast.Call) and _holds(one, line) and _name(one.func) == name
        ]
        return found[0] if len(found) == 1 else None

    def with_argument(self, call: ast.Call, argument: str) -> _Edit | None:
        """Return the edit that adds an argument, or changes it; `None` where it may be given by others."""
        name = argument.partition("=")[0]
        for one in call.keywords:
            if one.arg is None:
                return None
            if one.arg == name:
                value = one.value
                return self.offset(value.lineno, value.col_offset), self._end(value), argument.partition("=")[2]
        given: list[ast.expr] = [*call.args, *(one.value for one in call.keywords)]
        close = self._end(call) - 1
        if not given:
            return close, close, argument
        last = max(map(self._end, given))
        # What stands between is brackets of the last argument, a comma, and comments.
        rest = re.sub(rb"#[^\n]*", lambda found: b" " * len(found[0]), self.data[last:close])
        comma = rest.find(b",")
        if comma >= 0:
            return last + comma + 1, last + comma + 1, f" {argument},"
        at = last + rest.rfind(b")") + 1
        return at, at, f", {argument}"

    def offset(self, line: int, column: int) -> int:
        """Return where a column of a line is."""
        return self.starts[line - 1] + column

    def _end(self, node: ast.expr) -> int:
        return self.offset(node.end_lineno or node.lineno, node.end_col_offset or 0)

    def before(self, statement: ast.stmt, code: str) -> _Edit:
        """Return the edit that writes code before a statement, as far in as it is."""
        at = self.starts[statement.lineno - 1]
        indent = self.data[at : at + statement.col_offset].decode()
        return at, at, textwrap.indent(code, indent) + "\n"

    def after(self, statement: ast.stmt, code: str) -> _Edit | None:
        """Return the edit that writes code after a statement; `None` where more stands on its last line."""
        last = statement.end_lineno or statement.lineno
        at = self.starts[last]
        rest = self.data[self.offset(last, statement.end_col_offset or 0) : at].strip()
        if rest and not rest.startswith(b"#"):
            return None
        start = self.starts[statement.lineno - 1]
        indent = self.data[start : start + statement.col_offset].decode()
        newline = "" if self.data[:at].endswith(b"\n") else "\n"
        return at, at, newline + "\n" + textwrap.indent(code, indent)


def _holds(node: ast.stmt | ast.expr, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _name(function: ast.expr) -> str | None:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def _at_optimizer(source: _Source, place: Place, changes: Changes, program: Program) -> tuple[list[_Edit], Changes]:
    """Return the edits where the optimizer is made, and what they leave."""
    statement = source.statement(place.line)
    if statement is None:
        return [], changes
    edits: list[_Edit] = []
    left = changes
    if place.root is not None:
        code = "\n".join(before_optimizer(changes, place.root, has_statistics=program.has_statistics))
        edits += [source.before(statement, code)] if code else []
        left = replace(left, no_cache=False, chunk_loss=False, recompute=(), saved=(), offload=())
    call = source.call(place.line, place.class_name)
    if call is not None and changes.optimizer is not None:
        argument = source.with_argument(call, setting_of(changes))
        if argument is not None:
            edits.append(argument)
            left = replace(left, optimizer=None)
    variable = _variable(statement, call)
    if changes.step_in_backward and variable is not None:
        after = source.after(statement, "\n".join(after_optimizer(changes, variable)))
        if after is not None:
            edits.append(after)
            left = replace(left, step_in_backward=False)
    return edits, left


def _variable(statement: ast.stmt, call: ast.Call | None) -> str | None:
    """Return what an optimizer is put in, where the statement does nothing else."""
    if not isinstance(statement, ast.Assign) or call is None or statement.value is not call:
        return None
    (target, *others) = statement.targets
    return ast.unparse(target) if not others and isinstance(target, (ast.Name, ast.Attribute)) else None


def _cleared(program: Program, sources: Mapping[str, str]) -> dict[str, list[_Edit]]:
    """Return the edits of calls that fill gradients with zeros; none if one of them is not known."""
    found: dict[str, list[_Edit]] = defaultdict(list)
    for place in program.fills:
        if place.path not in sources:
            return {}
        source = _Source(sources[place.path])
        call = source.call(place.line, "zero_grad")
        edit = None if call is None or call.args else source.with_argument(call, "set_to_none=True")
        if edit is None:
            return {}
        found[place.path].append(edit)
    return found


def _diff(path: str, text: str, edits: list[_Edit]) -> str:
    data = text.encode()
    for start, end, new in sorted(edits, key=lambda one: (one[0], one[1]), reverse=True):
        data = data[:start] + new.encode() + data[end:]
    lines = difflib.unified_diff(_lines(text), _lines(data.decode()), f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    """Return lines with their ends; what else Python takes for the end of a line is none to `patch`."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)
