"""The options of an optimizer's parameter group, as the recording holds them: JSON in the optimizers table."""

from __future__ import annotations

import json
from typing import Any

from memtrace.store.trace import RankTrace


def options_of(rank: RankTrace, row: int) -> dict[str, Any]:
    """Return the options of a row of the optimizers table; none where what was recorded is damaged."""
    try:
        options = json.loads(rank.text(int(rank.table("optimizers")["options"][row])) or "{}")
    except (ValueError, RecursionError):
        return {}
    return options if isinstance(options, dict) else {}
