"""Words that sentences about a run are put together from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memtrace.schema.names import Phase, module_words

OUTPUTS = "outputs"
"""What of a forward outlives its step: its category is activation, and in a sentence it has this name."""


def when_and_where(step: int | None, phase: str | None, module: str | None) -> str:
    """Return a clause about a moment, beginning with a space; empty where nothing is known.

    >>> when_and_where(2, "forward", "blocks.3"), when_and_where(0, "other", None), when_and_where(None, None, None)
    (' in step 2 (forward) in blocks.3', ' before training began during other', '')
    >>> when_and_where(4, "evaluation", "net")
    ' during evaluation in step 4 in net'
    """
    parts = []
    if phase == Phase.EVALUATION.value:
        # It is no part of a step, it only lies in the time of one.
        parts.append(f"during {phase}")
        phase = None
    if step is not None:
        parts.append("before training began" if step == 0 else f"in step {step}")
    if phase is not None:
        parts.append(f"during {phase}" if step is None or step == 0 else f"({phase})")
    if module:
        parts.append(f"in {module_words(module)}")
    return "".join(f" {part}" for part in parts)


def line_of(where: Mapping[str, Any] | None) -> str | None:
    """Return the place in the program as "file:line function"; `None` where no line is known.

    >>> line_of({"file": "train.py", "line": 7, "function": "step", "module": None}), line_of(None)
    ('train.py:7 step', None)
    """
    if where is None or where.get("file") is None or where.get("line") is None:
        return None
    return f"{where['file']}:{where['line']} {where.get('function') or ''}".rstrip()
