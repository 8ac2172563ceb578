"""Histories of an allocator that lost events: what is left can be, but does not follow from its start."""

from __future__ import annotations

from random import Random
from typing import Any


def without_pairs(events: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """Return a history that lost that share of its allocations, each with its frees: sizes stay possible."""
    random, born, lost = Random(1), dict[int, list[int]](), set[int]()
    for at, one in enumerate(events):
        if one["action"] == "alloc":
            born[one["addr"]] = [at]
        elif one["action"].startswith("free") and one["addr"] in born:
            born[one["addr"]].append(at)
            if one["action"] == "free_completed":
                pair = born.pop(one["addr"])
                lost.update(pair if random.random() < share else ())
    return [one for at, one in enumerate(events) if at not in lost]
