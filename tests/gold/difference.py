"""How what came out differs from a gold file, as lines to read."""

from __future__ import annotations

import difflib


def difference(name: str, gold: str, actual: str, *, most: int | None = None) -> str:
    """Return a unified diff, "" where there is none; of at most `most` lines, saying how many more there are."""
    before, after = gold.splitlines(), actual.splitlines()
    lines = list(difflib.unified_diff(before, after, f"gold/{name}", f"actual/{name}", lineterm="", n=2))
    if most is not None and len(lines) > most:
        lines = [*lines[:most], f"… {len(lines) - most} more lines"]
    return "".join(f"{line}\n" for line in lines)
