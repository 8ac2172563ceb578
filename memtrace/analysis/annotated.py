"""The ranges that torch's optimizers annotate by themselves, in snapshots and profiles: steps, and zeroing gradients.

In: the annotations of a rank. Out: stretches of time, and the class of the optimizer.
"""

from __future__ import annotations

from memtrace.store.columns import NULL
from memtrace.store.trace import RankTrace

STEP_MARK, ZERO_MARK = "Optimizer.step#", "Optimizer.zero_grad#"
_FOREVER_NS = 2**63 - 1


def annotated_spans(rank: RankTrace, mark: str) -> list[tuple[int, int]]:
    """Return the stretches of time whose annotation starts with a mark, Unix ns, in order."""
    table = rank.table("annotations")
    return sorted(
        (int(start), _FOREVER_NS if end == NULL else int(end))
        for name, start, end in zip(table["name"], table["start_ns"], table["end_ns"], strict=True)
        if start != NULL and (rank.text(int(name)) or "").startswith(mark)
    )


def annotated_optimizer(rank: RankTrace) -> str | None:
    """Return the class of the first optimizer whose steps torch annotated: "AdamW" of `Optimizer.step#AdamW.step`."""
    for one in rank.table("annotations")["name"]:
        head, mark, name = (rank.text(int(one)) or "").partition(STEP_MARK)
        if mark and not head:
            return name.partition(".")[0]
    return None
