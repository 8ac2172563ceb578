"""The patch that `memtrace fix` writes: of files below the current folder, read as they are now."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memtrace.forecast.fixing.results import Fixed, Place
    from memtrace.report.answers.fix_patch import Patch

_MOST_BYTES = 1 << 22


def patch_for(found: Fixed) -> Patch | None:
    """Return the patch for the answer; `None` where nothing is to be changed, or no line of it is known."""
    from memtrace.report.answers.fix_patch import patch_of

    best = found.best
    if best is None or best.changes.is_nothing:
        return None
    program = replace(
        found.program,
        optimizers=tuple(map(_from_here, found.program.optimizers)),
        fills=tuple(map(_from_here, found.program.fills)),
    )
    sources = {
        place.path: text
        for place in (*program.optimizers, *program.fills)
        if not os.path.isabs(place.path) and (text := _text(Path(place.path))) is not None
    }
    try:
        patch = patch_of(best.changes, program, sources)
    except SyntaxError:
        # The file was changed while the search ran.
        return None
    return patch if patch.text else None


def _from_here(place: Place) -> Place:
    """Return a place with its path from the current folder, if it is below that."""
    path = os.path.relpath(os.path.realpath(place.path))
    return place if path.startswith(os.pardir) else replace(place, path=Path(path).as_posix())


def _text(path: Path) -> str | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        # Bytes as they are: line ends of the file are those of the patch.
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
