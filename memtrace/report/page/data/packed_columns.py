"""Columns of integers as a page holds them: compressed, in base64.

In: columns. Out: their specs for JSON, and one text. A column is little-endian, of the smallest type that holds it; an
ascending one is stored as differences, and one that may be missing is stored plus one, 0 being "none".
viewers/README.md says the same for readers of the page.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

from memtrace.analysis.results.report import IntArray

_LEVEL = 6


class PackedColumns:
    """Columns that are being packed."""

    def __init__(self) -> None:
        self.specs: list[dict[str, Any]] = []
        self._parts: list[bytes] = []

    def add(self, name: str, values: IntArray, *, ascending: bool = False, optional: bool = False) -> None:
        """Pack one column of integers from 0 (from -1, if `optional`).

        3, 3, 260, ascending, are stored as 3, 0, 257 in two bytes each: 03 00 · 00 00 · 01 01. Written are first the
        lower bytes, then the upper ones: 03 00 01 · 00 00 01.
        """
        numbers = values + 1 if optional else values
        stored = numbers
        if ascending and len(numbers):
            stored = numbers.copy()
            stored[1:] -= numbers[:-1]
        largest = int(stored.max()) if len(stored) else 0
        # Above 32 bits as a double, which JavaScript reads: exact to 2**53, 8 PiB or 104 days in ns.
        kind = next((kind for kind, bits in (("u1", 8), ("u2", 16), ("u4", 32)) if largest < 1 << bits), "f8")
        self.specs.append({"name": name, "type": kind, "length": len(stored), "ascending": ascending})
        packed = stored.astype(f"<{kind}")
        # Bytes of equal weight side by side: the upper ones are nearly all alike, and deflate finds that.
        self._parts.append(packed.view("u1").reshape(-1, packed.itemsize).T.tobytes())

    def data(self) -> str:
        """Return everything packed so far: base64 of one zlib stream of all columns, one after the other."""
        packer = zlib.compressobj(_LEVEL)
        packed = b"".join([*(packer.compress(part) for part in self._parts), packer.flush()])
        return base64.b64encode(packed).decode("ascii")
