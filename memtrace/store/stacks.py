"""Frames and stacks while a trace is built: a stack is its innermost frame and the stack that called it (a trie).

A snapshot of 20,000 events holds 700,000 frame entries, of which a few hundred are distinct. torch shares the frame
dicts, and some of the lists, between events, so identity is asked first and content only for a new object: a list that
holds the very dicts of one seen before is that stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import numpy as np

from memtrace.errors import TraceReadError
from memtrace.schema.tables import FRAMES, STACKS
from memtrace.store.columns import NULL, ColumnTable, IntArray, int_column
from memtrace.store.strings import StringTable

_MOST_ALIKE = 8
"""Lists of one length and with three frames in common that are compared, before one is looked up by all its frames."""


class StackTable:
    """Gives every distinct stack a row, callers before callees.

    The objects handed to `rows_of` must stay alive until `forget_identities`: it remembers them by `id`.
    """

    def __init__(self, strings: StringTable) -> None:
        self._strings = strings
        self._frame_rows: dict[tuple[str, int, str], int] = {}
        self._frame_by_identity: dict[int, int] = {}
        self._stack_rows: dict[int, int] = {}
        self._stack_frames: list[int] = []
        self._stack_parents: list[int] = []
        self._stack_by_identity: dict[int, int] = {}
        self._stack_by_frames: dict[tuple[int, ...], int] = {}
        self._alike: dict[tuple[int, int, int, int], list[tuple[Sequence[Any], int]]] = {}
        """Lists seen, with their rows, by length and the identities of three of their frames."""

    def rows_of(self, frame_lists: Sequence[Any]) -> IntArray:
        """Return the stack row of each list of frames (innermost first); null where it is `None` or empty."""
        distinct = dict(zip(map(id, frame_lists), frame_lists, strict=True))
        known = self._stack_by_identity
        for identity, frames in distinct.items():
            if identity not in known:
                known[identity] = self._row_of(frames)
        return int_column(list(map(known.__getitem__, map(id, frame_lists))), where="stacks")

    def forget_identities(self) -> None:
        """Forget which objects were seen, so that they may be released; their content stays known."""
        self._stack_by_identity.clear()
        self._frame_by_identity.clear()
        self._alike.clear()

    def extend(self, frame: int, parent: int) -> int:
        """Return the row of the stack with this innermost frame, called by `parent` (a row or null)."""
        key = (parent << 32 | frame) if parent != NULL else -1 - frame
        row = self._stack_rows.get(key)
        if row is None:
            row = self._stack_rows[key] = len(self._stack_frames)
            self._stack_frames.append(frame)
            self._stack_parents.append(parent)
        return row

    def frame(self, file: str, line: int, function: str) -> int:
        """Return the row of a frame."""
        return self._frame_rows.setdefault((file, line, function), len(self._frame_rows))

    def _row_of(self, frames: Any) -> int:
        if frames is None:
            return NULL
        if not isinstance(frames, (list, tuple)):
            raise TraceReadError(f"a list of frames was expected where the file holds {type(frames).__name__}")
        length = len(frames)
        if not length:
            return NULL
        alike = self._alike.setdefault((length, id(frames[0]), id(frames[length // 2]), id(frames[-1])), [])
        for other, row in alike:
            if all(map(is_, frames, other)):
                return row
        row = self._row_of_frames(frames)
        if len(alike) < _MOST_ALIKE:
            alike.append((frames, row))
        return row

    def _row_of_frames(self, frames: Sequence[Any]) -> int:
        by_identity = self._frame_by_identity
        try:
            key = tuple(map(by_identity.__getitem__, map(id, frames)))
        except KeyError:
            for frame in frames:
                if id(frame) not in by_identity:
                    by_identity[id(frame)] = self._frame_of(frame)
            key = tuple(map(by_identity.__getitem__, map(id, frames)))
        row = self._stack_by_frames.get(key)
        if row is None:
            row = NULL
            for number in reversed(key):
                row = self.extend(number, row)
            self._stack_by_frames[key] = row
        return row

    def _frame_of(self, frame: Any) -> int:
        if not isinstance(frame, dict):
            raise TraceReadError(f"a frame was expected where the file holds {type(frame).__name__}")
        file, line, function = frame.get("filename", ""), frame.get("line", 0), frame.get("name", "")
        if not (isinstance(file, str) and isinstance(line, int) and isinstance(function, str)):
            raise TraceReadError("a frame whose filename, line or name is of a wrong type")
        return self.frame(file, line if 0 <= line < 2**31 else 0, function)

    def tables(self) -> dict[str, ColumnTable]:
        """Return the tables `frames` and `stacks`."""
        columns = list(zip(*self._frame_rows, strict=True)) or [(), (), ()]
        files, lines, functions = (list(column) for column in columns)
        return {
            FRAMES.name: ColumnTable(
                FRAMES,
                {
                    "file": int_column(list(map(self._strings.id, files)), where="frames"),
                    "line": int_column(lines, where="frames"),
                    "function": int_column(list(map(self._strings.id, functions)), where="frames"),
                },
            ),
            STACKS.name: ColumnTable(
                STACKS,
                {
                    "frame": np.array(self._stack_frames, np.int64),
                    "parent": np.array(self._stack_parents, np.int64),
                },
            ),
        }
