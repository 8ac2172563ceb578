"""What a prediction took for granted because there is no data: where in the program, how often, by how much it may err.

In: each moment at which something was assumed. Out: sentences for the trace, one for each kind and line of the program,
and the end of the program where nothing sound can be assumed.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from memtrace.units import format_bytes

VALUES = "predicted-values"
"""Slug: a value was made up."""
BOUND = "predicted-bound"
"""Slug: a size was taken at its largest."""
OPERATOR = "predicted-operator"
"""Slug: an operator does not say what it makes."""
REFUSED = "predict-operator"
"""Slug of what ends a prediction."""

_MOST_PLACES = 20
"""Lines of the program that are named for one kind."""
TORCH_FOLDER = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
"""What the names of torch's own files begin with."""
_MEMTRACE = str(Path(__file__).resolve().parents[3]) + os.sep
_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})

Warn = Callable[[str, str], None]


class Assumptions:
    """Collects what was assumed."""

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self._found: dict[tuple[str, str, str], list[int]] = {}
        """By slug, place and what: how often, and by how many bytes at most."""
        self._refusal: str | None = None

    def value(self, what: str) -> None:
        """A value of the GPU was asked for; `what` says what it was taken to be."""
        self.note(VALUES, what)

    def bound(self, operator: str, excess_bytes: int) -> None:
        """The data says how much this operator makes: the most was assumed, which may be too much by these bytes."""
        self.note(BOUND, operator, excess_bytes)

    def operator(self, operator: str, assumed: str) -> None:
        """An operator has no kernel for shapes; `assumed` says what it was taken to do."""
        self.note(OPERATOR, f"{operator} does not say which shapes it makes; {assumed}")

    def refuse(self, sentence: str) -> NoReturn:
        """End the program: no sound prediction is possible. One that catches this is ended by its next operator."""
        self._refusal = f"{place()}: {sentence}"
        self._warn(REFUSED, self._refusal)
        raise SystemExit(1)

    def check(self) -> None:
        """End the program if it was refused and goes on."""
        if self._refusal is not None:
            raise SystemExit(1)

    def note(self, slug: str, what: str, excess_bytes: int = 0) -> None:
        """Count something that was assumed, by the line of the program that runs now."""
        found = self._found.setdefault((slug, place(), what), [0, 0])
        found[0] += 1
        found[1] = max(found[1], excess_bytes)

    def notes(self) -> Iterator[tuple[str, str]]:
        """Yield slug and sentence of everything that was assumed, the most frequent first."""
        for slug in (OPERATOR, BOUND, VALUES):
            found = [(count, excess, *key[1:]) for key, (count, excess) in self._found.items() if key[0] == slug]
            found.sort(key=lambda one: (-one[1], -one[0], *one[2:]))
            for count, excess, where, what in found[:_MOST_PLACES]:
                times = "once" if count == 1 else f"{count} times"
                if slug == BOUND:
                    what = f"what {what} makes is as large as the data says; the most was assumed, up to "
                    what += f"{format_bytes(excess)} too much"
                yield slug, f"{where}: {what} ({times})"
            if len(found) > _MOST_PLACES:
                yield slug, f"the same in {len(found) - _MOST_PLACES} more places"


def place() -> str:
    """Return file and line of the program that runs now: of its own code, or else of a library that is not torch."""
    nearest: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((TORCH_FOLDER, _MEMTRACE, "<")):
            nearest = nearest or frame
            if not file.startswith(_LIBRARIES):
                return _shown(frame)
        frame = frame.f_back
    return "somewhere" if nearest is None else _shown(nearest)


def _shown(frame: FrameType) -> str:
    file = os.path.abspath(frame.f_code.co_filename)
    for folder in (os.getcwd() + os.sep, *_LIBRARIES):
        file = file.removeprefix(folder)
    return f"{file}:{frame.f_lineno}"


def operator_name(func: Any) -> str:
    """Return an operator as the program calls it: `nonzero`, `mylib::scale`."""
    name = str(func.name()).partition(".")[0]
    return name.removeprefix("aten::")
