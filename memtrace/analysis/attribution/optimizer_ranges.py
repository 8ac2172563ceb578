"""The ranges that torch's optimizers annotate by themselves, in snapshots and profiles: steps, and zeroing gradients.

In: the annotations of a rank. Out: stretches of time, the class of the optimizer, and what that says of its states.
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


def num_sets(optimizer: str | None) -> tuple[int, ...]:
    """Return how many sets as large as the parameters there may be: they, their gradients, and states."""
    name = (optimizer or "").lower()
    return (4,) if "adam" in name else (3, 2) if "sgd" in name else (4, 3, 2)


def num_states(optimizer: str | None) -> int | None:
    """Return how many states as large as a parameter an optimizer makes; `None` if that is not known."""
    name = (optimizer or "").lower()
    return 2 if "adam" in name else 1 if "sgd" in name or "adagrad" in name else None
