"""Words that sentences about a run are put together from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from memtrace.schema.names import Category, Phase

CATEGORY_WORDS = {
    Category.PARAMETER: "parameters",
    Category.BUFFER: "buffers",
    Category.GRADIENT: "gradients",
    Category.OPTIMIZER_STATE: "optimizer state",
    Category.ACTIVATION: "activations",
    Category.INPUT: "inputs",
    Category.TEMPORARY: "temporaries",
    Category.AUTOGRAD_DETAIL: "autograd details",
    Category.COMMUNICATION: "communication buffers",
    Category.WORKSPACE: "workspaces",
    Category.UNKNOWN: "unattributed",
}
"""What the bytes of a category are called in a sentence."""


def category_named(text: str) -> Category | None:
    """Return the category of this name, or that is shown in these words; `None` if there is none.

    >>> category_named("optimizer_state") is category_named("Optimizer states") is Category.OPTIMIZER_STATE
    True
    >>> category_named("unattributed"), category_named("weights"), category_named("memory")
    (<Category.UNKNOWN: 'unknown'>, <Category.PARAMETER: 'parameter'>, None)
    """
    return _BY_WORDS.get(_plain(text))


def _plain(text: str) -> str:
    """Return words in small letters, each without the ending of a plural.

    >>> _plain("Autograd-Details"), _plain("temporaries")
    ('autograd detail', 'temporary')
    """
    words = re.split(r"[\s_-]+", text.strip().lower())
    return " ".join(re.sub("ies$", "y", word).removesuffix("s") for word in words)


_BY_WORDS = {
    **{_plain(category.value): category for category in Category},
    **{_plain(words): category for category, words in CATEGORY_WORDS.items()},
    "weight": Category.PARAMETER,
}

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
        parts.append(f"in {module}")
    return "".join(f" {part}" for part in parts)


def line_of(where: Mapping[str, Any] | None) -> str | None:
    """Return the place in the program as "file:line function"; `None` where no line is known.

    >>> line_of({"file": "train.py", "line": 7, "function": "step", "module": None}), line_of(None)
    ('train.py:7 step', None)
    """
    if where is None or where.get("file") is None or where.get("line") is None:
        return None
    return f"{where['file']}:{where['line']} {where.get('function') or ''}".rstrip()
