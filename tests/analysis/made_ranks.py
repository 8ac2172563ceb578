"""Ranks of a run made of a list of parameters: each holds a part, or a copy, with a gradient and two moments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import Report
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import event_rows, owner, phase, rank_trace, step, trace, window

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """What a rank has of a parameter."""

    shape: Shape
    whole: Shape | None = None
    placement: str | None = None
    has_state: bool = True
    counts_steps: bool = True


def made_rank(
    rank: int | None,
    world_size: int | None,
    parts: Mapping[str, Part],
    *,
    ddp: bool = False,
    gathers: Sequence[str] = (),
    more: int = 0,
    last_step: int = 1,
    classes: Sequence[str] = (),
    optimizer: str = "AdamW",
    device: str = "cpu",
    **header: Any,
) -> RankTrace:
    """Return a rank that holds these parts at the end of each step; `gathers` are the phases in which FSDP2 gathers.

    `more` bytes are allocated and freed within step 1. Names of optimizer and of module `classes` are as recorded.
    """
    tensors = list(_tensors(parts))
    sizes = [4 * math.prod(shape) for _, _, shape, _ in tensors]
    used = [at for at, size in enumerate(sizes) if size]
    events = [("alloc", 1000 + at, sizes[at]) for at in used]
    events += [("alloc", 1, more), ("free_completed", 1, more)] if more else []
    begin, end = 10 * len(events), 10 * len(events) + 100
    steps = [step(0, 0, begin)] + [
        step(at, begin + 200 * (at - 1), end + 200 * (at - 1)) for at in range(1, last_step + 1)
    ]
    phases = [phase("forward", 1, begin, begin + 40), phase("backward", 1, begin + 40, begin + 80)]
    owners = [
        owner(steps[-1]["end_ns"] + 1, 1000 + at, sizes[at], tensors[at][0], device=device)
        | {"name": tensors[at][1], "shape": "x".join(map(str, tensors[at][2])), "dtype": "float32", "step": last_step}
        | {"global_shape": _text(tensors[at][3].whole), "placement": tensors[at][3].placement}
        for at in used
    ]
    owners += [
        owner(begin + {"forward": 10, "backward": 50}[name], 2, 8, "communication", device=device)
        | {"name": "all-gather of blocks.0"}
        for name in gathers
    ]
    names = [*(["Reducer"] if ddp else []), *classes]
    scopes = [
        {"module": "x", "class_name": name, "start_ns": begin, "end_ns": begin, "step": 1, "recompute": False}
        for name in names
    ]
    elements = sum(math.prod(part.whole or part.shape) for part in parts.values())
    groups = [{"class_name": optimizer, "group": 0, "num_parameters": elements, "options": "{}"}]
    return rank_trace(
        header={"rank": rank, "world_size": world_size, **header},
        events=event_rows(events, device=device),
        windows=[window(0, len(events), initial=0)] if events else [],
        steps=steps,
        phases=phases,
        scopes=scopes,
        owners=owners,
        optimizers=groups,
    )


def _tensors(parts: Mapping[str, Part]) -> list[tuple[str, str, Shape, Part]]:
    """Return category, name, shape and part of each tensor that is held."""
    found: list[tuple[str, str, Shape, Part]] = []
    for name, part in parts.items():
        found += [("parameter", name, part.shape, part), ("gradient", name, part.shape, part)]
        if part.has_state:
            found += [("optimizer_state", f"{kind} of {name}", part.shape, part) for kind in ("exp_avg", "exp_avg_sq")]
            found += [("optimizer_state", f"step of {name}", (), part)] if part.counts_steps else []
    return found


def _text(shape: Shape | None) -> str | None:
    return None if shape is None else "x".join(map(str, shape))


def copies(shapes: Mapping[str, Shape]) -> dict[str, Part]:
    """Return whole parameters."""
    return {name: Part(shape) for name, shape in shapes.items()}


def report_of(*ranks: RankTrace) -> Report:
    """Return the report of a run of these ranks."""
    return analyze(trace(*ranks))
