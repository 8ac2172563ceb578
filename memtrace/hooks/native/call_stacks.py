"""The watch's stacks, which are numbers, as rows of a chunk's table: files, lines and functions.

A stack's number is that of a node: what runs, the node that called it, and where that was then, as an offset in its
code. So the line of each frame is known from the one below it, and that of the innermost from where it
asked for memory.
"""

from __future__ import annotations

import ctypes
import os
from bisect import bisect_right
from collections.abc import Callable
from types import CodeType

from memtrace.hooks.parts.chunk import StackTable
from memtrace.schema.frames import WRAPPER_FILE

_CODE, _BUILT_IN, _GRAPH_NODE, _PLACE = range(4)
_OWN_SHORT = os.path.join("memtrace", "hooks", "")
_GENERATED = "torch::autograd::generated::"
_NOWHERE = -1


class Node(ctypes.Structure):
    """`struct node` of stacks.c."""

    _fields_ = [
        ("what", ctypes.c_void_p),
        ("parent", ctypes.c_int32),
        ("at", ctypes.c_int32),
        ("kind", ctypes.c_int32),
    ]


class _Code:
    """What a frame of some code is called, and its lines. The watch keeps the code itself."""

    __slots__ = ("_ends", "_lines", "file", "first_line", "is_own", "name")

    def __init__(self, address: int, own_folder: str) -> None:
        code: CodeType = ctypes.cast(address, ctypes.py_object).value
        self.file, self.name = _printable(code.co_filename), _printable(code.co_name)
        self.first_line = code.co_firstlineno
        self.is_own = code.co_filename.startswith((own_folder, _OWN_SHORT, WRAPPER_FILE))
        spans = [(start, line) for start, _, line in code.co_lines()]
        self._ends = [start for start, _ in spans]
        self._lines = [line for _, line in spans]

    def line(self, at: int) -> int:
        """Return the line at an offset; the first of the function where it is none of its code."""
        found = bisect_right(self._ends, at) - 1 if at >= 0 else _NOWHERE
        return (self._lines[found] if found >= 0 else None) or self.first_line


class CallStacks:
    """Names stacks. What a number stands for, and what that is called, is found out once."""

    def __init__(self, node_of: Callable[[int], Node], demangle: Callable[[str], str], *, own_folder: str) -> None:
        """Prepare; `demangle` says a C++ class in words, and code below `own_folder` is no frame of the program's."""
        self._node_of = node_of
        self._demangle = demangle
        self._own_folder = own_folder
        self._nodes: dict[int, Node] = {}
        self._codes: dict[int, _Code] = {}
        self._names: dict[int, str] = {}
        self._table: StackTable | None = None
        self._rows: dict[tuple[int, int], int | None] = {}

    def row(self, number: int, table: StackTable) -> int | None:
        """Return a stack's row in a table, into which it is put if it is not there; `None` for no stack."""
        if table is not self._table:
            self._table, self._rows = table, {}
        # Without recursion: a program's stack may be as deep as Python lets it be.
        waiting: list[tuple[tuple[int, int], Node]] = []
        key = (number, _NOWHERE)
        while key[0] and key not in self._rows:
            node = self._nodes.get(key[0]) or self._nodes.setdefault(key[0], self._node_of(key[0]))
            waiting.append((key, node))
            key = (node.parent, node.at)
        row = self._rows.get(key)
        for key, node in reversed(waiting):
            row = self._rows[key] = self._push(table, node, row, key[1])
        return row

    def _push(self, table: StackTable, node: Node, caller: int | None, at: int) -> int | None:
        """Return the row of a node at an offset, called by a stack that has a row."""
        if node.kind == _PLACE:
            return caller
        if node.kind == _CODE:
            code = self._codes.get(node.what) or self._codes.setdefault(node.what, _Code(node.what, self._own_folder))
            return caller if code.is_own else table.push(caller, code.file, code.line(at), code.name)
        return table.push(caller, "", 0, self._name(node))

    def _name(self, node: Node) -> str:
        name = self._names.get(node.what)
        if name is None:
            name = ctypes.string_at(node.what).decode("utf-8", "replace")
            if node.kind == _GRAPH_NODE:
                # As torch's profiler calls it. A star stands before classes that only one library knows.
                name = self._demangle(name.lstrip("*")).removeprefix(_GENERATED)
            self._names[node.what] = name
        return name


def _printable(text: str) -> str:
    """Return a name that can be written: a file's may hold bytes that are no text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
