"""A predicted run in a few lines, as the program leaves it: invented addresses, two steps, an owner, notes."""

from __future__ import annotations

from typing import Any

from memtrace.schema.predicted import FIRST_ALLOWANCE_ADDRESS, FIRST_RULE_ADDRESS
from memtrace.store.trace import LoadWarning, RankTrace, Trace
from tests.builders import START_US, rank_trace

DEVICE = "cuda:0"
MIB = 1024**2
PARAMETER, RULE = 40 * MIB, 24 * MIB
_FIRST = 1 << 40
_START_NS = 1000 * START_US


def predicted_rank(
    activation: int, *, second: int | None = None, allowance: int = 0, notes: tuple[str, ...] = (), **header: Any
) -> RankTrace:
    """Return a run of which each of two steps takes an activation, and a temporary by rule while that lives.

    `second` is the activation of the second step, where it is another.
    """
    events: list[tuple[str, int, int]] = [("alloc", _FIRST, PARAMETER)]
    for number in (1, 2):
        at = _FIRST + number * (1 << 35)
        taken = activation if second is None or number == 1 else second
        rule, maybe = FIRST_RULE_ADDRESS + number * 512, FIRST_ALLOWANCE_ADDRESS + number * 512
        events += [("alloc", at, taken), ("alloc", rule, RULE), ("free_completed", rule, RULE)]
        if allowance:
            events += [("alloc", maybe, allowance), ("free_completed", maybe, allowance)]
        events.append(("free_completed", at, taken))
    each = (len(events) - 1) // 2
    ends = [_START_NS + 500, *(_START_NS + 500 + 1000 * each * number for number in (1, 2))]
    steps = [
        {"step": number, "start_ns": start, "end_ns": end, "recorded": True, "num_microbatches": min(number, 1)}
        for number, (start, end) in enumerate(zip([_START_NS - 500, *ends], ends, strict=False))
    ]
    columns = ("action", "address", "size_bytes")
    return rank_trace(
        header={
            "source": "predicted",
            "versions": {"torch": "2.13.0"},
            "devices": [{"name": DEVICE}],
            "sources": {"events": "fake_device"},
            **header,
        },
        warnings=[LoadWarning(slug=slug, message=f"train.py:1: {slug}") for slug in notes],
        events=[dict(zip(columns, event, strict=True)) for event in events],
        steps=steps,
        owners=[
            {"time_ns": ends[number], "step": number, "device": DEVICE, "address": _FIRST, "size_bytes": PARAMETER}
            | {"tensor_bytes": PARAMETER, "category": "parameter", "name": "weight"}
            for number in (1, 2)
        ],
    )


def predicted_trace(activation: int, **options: Any) -> Trace:
    """Return the trace of such a run."""
    rank = predicted_rank(activation, **options)
    return Trace(header={"command": ["python", "train.py"]}, ranks=(rank,), path="predicted.json")
