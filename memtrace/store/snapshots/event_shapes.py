"""How an event of a history lies in a pickle, byte for byte, and the columns of all events that lie alike.

torch writes the same dict over and over: the keys are references to texts that stand at the first event, the values
are numbers, references, short texts and, last, a list of references to frames. Such an event has a *shape*: which byte
is an opcode, and which belongs to a value. A shape is read off one event, opcode by opcode, and then compared with many
at once. An event that holds anything else has no shape, and is left to the unpickler.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

WINDOW = 192
"""Bytes of an event up to its frames, at most; a multiple of 8."""
START = b"}\x94("
"""An empty dict, remembered, and the mark before its items."""
_REFERENCE_BYTES = {ord("h"): 1, ord("j"): 4}
_INT_BYTES = {ord("K"): 1, ord("M"): 2, ord("J"): 4}
_LONG, _TEXT, _NONE = 0x8A, 0x8C, ord("N")
_MEMOIZE, _TUPLE2, _SETITEMS = 0x94, 0x86, ord("u")
_EMPTY_LIST, _MARK, _APPEND = ord("]"), ord("("), ord("a")


@dataclass(frozen=True, slots=True)
class Value:
    """Where the value of a key lies."""

    kind: str
    """int, reference, text, or other: one that no column needs."""
    at: int
    num_bytes: int
    is_signed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """The bytes of an event before its list of frames; of the whole event where that is a reference, or short."""

    keys: tuple[bytes, ...]
    """The reference that each key is."""
    values: tuple[Value, ...]
    """One for each key but the last, whose value are the frames."""
    frames: Value
    """The reference to a list of frames, or where the list itself lies; the kind is then list, or longer if only its
    start is known."""
    num_bytes: int
    num_remembered: int
    """Objects that it adds to the memo of the pickle; the list of frames, if it follows, is the last of them."""
    fixed: npt.NDArray[np.uint64]
    """The bytes that all events of the shape share, 0 where they differ."""
    mask: npt.NDArray[np.uint64]

    def matches(self, windows: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Return which windows (a row each) begin with an event of this shape."""
        found = np.ones(len(windows), np.bool_)
        for at in range(-(-self.num_bytes // 8)):
            found &= (windows[:, at] & self.mask[at]) == self.fixed[at]
        return found


def numbers_at(windows: Bytes, value: Value) -> IntArray:
    """Return the number (or the reference) that a value is, for each window; these go on for 8 bytes behind it."""
    words = np.ascontiguousarray(windows[:, value.at : value.at + 8]).view(np.int64)[:, 0]
    found = words & ((1 << (8 * value.num_bytes)) - 1) if value.num_bytes < 8 else words
    if value.is_signed and value.num_bytes < 8:
        unused = 64 - 8 * value.num_bytes
        found = (found << unused) >> unused
    return found


def shape_of(window: bytes) -> Shape | None:
    """Return the shape of the event that a window begins with; `None` if it has none."""
    try:
        return _Reader(window).shape()
    except (IndexError, _IrregularError):
        return None


class _IrregularError(Exception):
    """Something stands there that no shape has."""


class _Reader:
    """Walks over the opcodes of one event."""

    def __init__(self, window: bytes) -> None:
        self.window = window
        self.at = len(START)
        self.num_remembered = 1
        self.varying: list[Value] = []

    def shape(self) -> Shape:
        """Return the shape; raise where there is none."""
        if not self.window.startswith(START):
            raise _IrregularError
        keys, values = [self._key()], list[Value]()
        while (frames := self._frames()) is None:
            values.append(self._value())
            keys.append(self._key())
        mask = np.zeros(WINDOW, np.uint8)
        mask[: self.at] = 255
        for value in self.varying:
            # A text is plain ASCII, so that it is one for sure.
            mask[value.at : value.at + value.num_bytes] = 0x80 if value.kind == "text" else 0
        fixed = np.frombuffer(self.window.ljust(WINDOW, b"\0"), np.uint8) & mask
        return Shape(
            keys=tuple(keys),
            values=tuple(values),
            frames=frames,
            num_bytes=self.at,
            num_remembered=self.num_remembered,
            fixed=fixed.view(np.uint64),
            mask=mask.view(np.uint64),
        )

    def _byte(self) -> int:
        if self.at >= WINDOW:
            raise _IrregularError
        found = self.window[self.at]
        self.at += 1
        return found

    def _key(self) -> bytes:
        start = self.at
        num_bytes = _REFERENCE_BYTES.get(self._byte())
        if num_bytes is None:
            raise _IrregularError
        self.at += num_bytes
        return self.window[start : self.at]

    def _take(self, kind: str, num_bytes: int, *, is_signed: bool = False) -> Value:
        value = Value(kind, self.at, num_bytes, is_signed)
        self.at += num_bytes
        self.varying.append(value)
        return value

    def _value(self) -> Value:
        opcode = self._byte()
        if opcode in _REFERENCE_BYTES:
            return self._take("reference", _REFERENCE_BYTES[opcode])
        if opcode == _LONG:
            num_bytes = self._byte()
            if not 0 < num_bytes <= 8:
                raise _IrregularError
            return self._take("int", num_bytes, is_signed=True)
        if opcode in _INT_BYTES:
            value = self._take("int", _INT_BYTES[opcode], is_signed=opcode == ord("J"))
            return value if opcode != ord("K") or self.window[self.at] != ord("K") else self._pair()
        if opcode == _TEXT:
            value = self._take("text", self._byte())
            if not self.window[value.at : self.at].isascii():
                raise _IrregularError
            self._remember()
            return value
        if opcode == _NONE:
            return Value("other", self.at, 0)
        raise _IrregularError

    def _pair(self) -> Value:
        """Return the pair of small numbers of which the first was taken: the id of a pool."""
        self._byte()
        value = self._take("other", 1)
        if self._byte() != _TUPLE2:
            raise _IrregularError
        self._remember()
        return value

    def _remember(self) -> None:
        if self._byte() != _MEMOIZE:
            raise _IrregularError
        self.num_remembered += 1

    def _frames(self) -> Value | None:
        """Return the last value, at which this stands, and go behind it; `None` if it is not the last."""
        opcode = self.window[self.at]
        num_bytes = _REFERENCE_BYTES.get(opcode)
        if opcode == _EMPTY_LIST:
            self._byte()
            self._remember()
            return self._list()
        if num_bytes is None or self.window[self.at + 1 + num_bytes] != _SETITEMS:
            return None
        self._byte()
        frames = self._take("reference", num_bytes)
        self._end()
        return frames

    def _list(self) -> Value:
        """Return a list of frames: of many, of one, or of none."""
        start, opcode = self.at, self._byte()
        if opcode == _MARK:
            return Value("longer", self.at, 0)
        if opcode == _SETITEMS:
            return Value("list", start, 0)
        num_bytes = _REFERENCE_BYTES.get(opcode)
        if num_bytes is None:
            raise _IrregularError
        self._take("reference", num_bytes)
        if self._byte() != _APPEND:
            raise _IrregularError
        self._end()
        return Value("list", start, 1 + num_bytes)

    def _end(self) -> None:
        if self._byte() != _SETITEMS:
            raise _IrregularError
