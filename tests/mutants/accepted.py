"""Survivors that somebody has looked at and accepted, with a reason: `accepted.txt`, in blocks of four lines.

A block names the file, the line as it is, the line with the fault, and why no test is to tell them apart. Lines are
compared by their text, so that an entry stays valid when the lines above it change.
"""

from __future__ import annotations

from pathlib import Path

from tests.mutants.faults import Fault

ACCEPTED_FILE = Path(__file__).with_name("accepted.txt")
Key = tuple[str, str, str]


def load_accepted(path: Path) -> dict[Key, str]:
    """Return the reason for each accepted fault."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    reasons: dict[Key, str] = {}
    for block in text.strip().split("\n\n"):
        if not block.strip():
            continue
        lines = [line.strip() for line in block.strip().splitlines()]
        if len(lines) != 4:
            raise ValueError(f"{path}: a block has four lines (file, line, line with the fault, reason), not:\n{block}")
        file, old, new, reason = lines
        reasons[file, old, new] = reason
    return reasons


def key_of(fault: Fault) -> Key:
    """Return under what a fault may be accepted."""
    return fault.source.path, fault.old_line, fault.new_line
