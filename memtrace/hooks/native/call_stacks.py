"""The watch's stacks, which are numbers, as rows of a chunk's table: files, lines and functions.

A stack's number is that of a node: what runs, where it is, as an offset in its code, and the node that called it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from memtrace.hooks.failure.tracebacks import OWN_FILES
from memtrace.hooks.parts.chunk import StackTable

_CODE, _GRAPH_NODE = range(2)
_GENERATED = "torch::autograd::generated::"
_OURS = ("", 0, "")
_UNKNOWN = ("", 0, "?")
"""Stands for a frame for whose name there was no memory."""
_ENCODINGS = {1: "latin-1", 2: f"utf-16-{sys.byteorder[0]}e", 4: f"utf-32-{sys.byteorder[0]}e"}


class _Text(ctypes.Structure):
    _fields_ = [("characters", ctypes.c_void_p), ("num_bytes", ctypes.c_int32), ("width", ctypes.c_int32)]


class _Code(ctypes.Structure):
    _fields_ = [("file", _Text), ("name", _Text)]


class Node(ctypes.Structure):
    """`struct node` of stacks.c."""

    _fields_ = [
        ("what", ctypes.c_void_p),
        ("check", ctypes.c_void_p),
        ("parent", ctypes.c_int32),
        ("at", ctypes.c_int32),
        ("kind", ctypes.c_int32),
        ("line", ctypes.c_int32),
        ("code", ctypes.c_void_p),
    ]


class CallStacks:
    """Names stacks. What a number stands for, and what that is called, is found out once."""

    def __init__(self, node_of: Callable[[int], Node], demangle: Callable[[str], str]) -> None:
        """Prepare; `demangle` says a C++ class in words."""
        self._node_of = node_of
        self._demangle = demangle
        self._codes: dict[int, tuple[str, str, bool]] = {}
        self._places: dict[int, tuple[str, int, str]] = {}
        self._names: dict[int, str] = {}
        self._table: StackTable | None = None
        self._rows: dict[int, int | None] = {}

    def row(self, number: int, table: StackTable) -> int | None:
        """Return a stack's row in a table, into which it is put if it is not there; `None` for no stack."""
        if table is not self._table:
            self._table, self._rows = table, {0: None}
        # Without recursion: a program's stack may be as deep as Python lets it be.
        waiting: list[tuple[int, Node]] = []
        while number not in self._rows:
            node = self._node_of(number)
            waiting.append((number, node))
            number = node.parent
        row = self._rows[number]
        for number, node in reversed(waiting):
            row = self._rows[number] = self._push(table, number, node, row)
        return row

    def _push(self, table: StackTable, number: int, node: Node, caller: int | None) -> int | None:
        """Return the row of a node that is called by a stack which has one."""
        if node.kind == _GRAPH_NODE:
            return table.push(caller, "", 0, self._name(node))
        place = self._places.get(number) or self._places.setdefault(number, self._place(node))
        return caller if place is _OURS else table.push(caller, *place)

    def _place(self, node: Node) -> tuple[str, int, str]:
        """Return file, line and function of a frame."""
        if not node.code:
            return _UNKNOWN
        file, name, is_own = self._codes.get(node.code) or self._codes.setdefault(node.code, self._code(node.code))
        return _OURS if is_own else (file, node.line, name)

    def _code(self, address: int) -> tuple[str, str, bool]:
        """Return file and function of a code, and whether it is ours. What is there stays there."""
        code = _Code.from_address(address)
        file = _read(code.file)
        return file, _read(code.name), file.startswith(OWN_FILES)

    def _name(self, node: Node) -> str:
        name = self._names.get(node.what)
        if name is None:
            # As torch's profiler calls it. A star stands before classes that only one library knows.
            name = ctypes.string_at(node.what).decode("utf-8", "replace").lstrip("*")
            name = self._names[node.what] = self._demangle(name).removeprefix(_GENERATED)
        return name


def _read(text: _Text) -> str:
    """Return a text of Python's; of a file's name, bytes that are no text are replaced."""
    if not text.characters:
        return ""
    content = ctypes.string_at(text.characters, text.num_bytes)
    read = content.decode(_ENCODINGS[text.width], "surrogatepass")
    return read.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
