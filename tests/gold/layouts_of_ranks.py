"""What comparing ranks says of made-up layouts, whole: how they share the work, what that could save, who stands out.

In: nothing. Out: what stands in the gold file, a layout a line.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from memtrace.report.terminal.report import render_text
from memtrace.store.trace import RankTrace
from tests.analysis.made_ranks import Part, Shape, copies, made_rank, report_of

SHAPES: dict[str, Shape] = {
    "tokens.weight": (10, 8),
    "blocks.0.norm.weight": (8,),
    "blocks.0.up.weight": (24, 8),
    "blocks.1.norm.weight": (8,),
    "blocks.1.up.weight": (24, 8),
    "head.weight": (11, 8),
}
WITHOUT_ROOT = {name: shape for name, shape in SHAPES.items() if name.startswith("blocks")}
BOTH = ("forward", "backward")
EXCEPTION = {"type": "torch.OutOfMemoryError", "message": "no memory", "is_oom": True}


def _cut(shape: Shape, ranks: int, rank: int) -> Shape:
    """Return the rows of a rank, as FSDP2 cuts them."""
    rows = -(-shape[0] // ranks)
    return (max(0, min(rows, shape[0] - rank * rows)), *shape[1:])


def _divided(ranks: int, rank: int, placement: str, *, only: str = "") -> dict[str, Part]:
    return {
        name: Part(_cut(shape, ranks, rank), shape, placement.format(rank=rank, ranks=ranks))
        if only in name
        else Part(shape)
        for name, shape in SHAPES.items()
    }


def _all(world_size: int, parts: Callable[[int], Mapping[str, Part]], **how: Any) -> list[RankTrace]:
    return [made_rank(rank, world_size, parts(rank), **how) for rank in range(world_size)]


def _both_axes(first: str, second: str) -> Callable[[int], dict[str, Part]]:
    """Return parts of a mesh of two by two."""
    return lambda rank: {
        name: Part(
            _cut(shape, 2, rank // 2) if "Shard" in first else shape,
            shape,
            f"{first} {rank // 2} of 2, {second} {rank % 2} of 2",
        )
        for name, shape in SHAPES.items()
    }


def _uneven(rank: int) -> dict[str, Part]:
    return {name: Part(shape, has_state=at % 2 == rank) for at, (name, shape) in enumerate(SHAPES.items())}


def _stages(rank: int) -> dict[str, Part]:
    return copies({name: shape for name, shape in SHAPES.items() if (name < "blocks.1") == (rank == 0)})


LAYOUTS: dict[str, Callable[[], list[RankTrace]]] = {
    "copies": lambda: _all(3, lambda _: copies(SHAPES)),
    "DDP": lambda: _all(4, lambda _: copies(SHAPES), ddp=True, more=400),
    "DDP with SGD": lambda: _all(2, lambda _: copies(SHAPES), ddp=True, optimizer="SGD"),
    "DDP, few layers": lambda: _all(2, lambda _: copies(WITHOUT_ROOT), ddp=True),
    "FSDP2": lambda: _all(4, lambda rank: _divided(4, rank, "dp Shard(0) {rank} of {ranks}"), gathers=BOTH),
    "FSDP2 over two": lambda: _all(2, lambda rank: _divided(2, rank, "Shard(0) {rank} of {ranks}"), gathers=BOTH),
    "FSDP2, kept": lambda: _all(4, lambda rank: _divided(4, rank, "dp Shard(0) {rank} of 4"), gathers=("forward",)),
    "FSDP2, no gathering": lambda: _all(4, lambda rank: _divided(4, rank, "dp Shard(0) {rank} of 4")),
    "FSDP2 of blocks": lambda: _all(
        2, lambda rank: _divided(2, rank, "dp Shard(0) {rank} of 2", only="blocks"), gathers=BOTH
    ),
    "one shard": lambda: _all(2, lambda _: _divided(1, 0, "dp Shard(0) 0 of 1"), gathers=BOTH),
    "HSDP": lambda: _all(4, _both_axes("replicate Replicate", "shard Shard(0)"), gathers=BOTH),
    "FSDP2 and TP": lambda: _all(4, _both_axes("dp Shard(0)", "tp Shard(1)"), gathers=BOTH),
    "TP": lambda: _all(2, lambda rank: _divided(2, rank, "tp Shard(0) {rank} of 2", only="up")),
    "TP, an unnamed mesh": lambda: _all(2, lambda rank: _divided(2, rank, "Shard(1) {rank} of 2", only="up")),
    "TP and DDP": lambda: _all(4, lambda rank: _divided(2, rank % 2, "tp Shard(0) {rank} of 2", only="up"), ddp=True),
    "ZeRO-1": lambda: _all(2, _uneven, ddp=True),
    "ZeRO-1, told": lambda: _all(2, _uneven, ddp=True, optimizer="ZeroRedundancyOptimizer"),
    "flat parameters": lambda: _all(2, lambda _: copies({"_flat_param": (99,)})),
    "DeepSpeed": lambda: _all(2, lambda _: copies(SHAPES), optimizer="DeepSpeedZeroOptimizer"),
    "layers of Megatron": lambda: _all(2, lambda _: copies(SHAPES), classes=("ColumnParallelLinear",)),
    "two stages": lambda: _all(2, _stages),
    "ranks missing": lambda: [made_rank(rank, 8, copies(SHAPES), ddp=True) for rank in (0, 1, 3, 6, 7)],
    "one of four": lambda: [made_rank(0, 4, copies(SHAPES), ddp=True)],
    "one needs more": lambda: [
        made_rank(rank, 5, copies(SHAPES), ddp=True, more=4000 if rank == 3 else 100, host="ab"[rank // 3])
        for rank in range(5)
    ],
    "one ends early": lambda: [
        made_rank(rank, 4, copies(SHAPES), last_step=3 - rank % 2, complete=rank != 2) for rank in range(4)
    ],
    "one runs out": lambda: [
        made_rank(rank, 3, copies(SHAPES), last_step=2, **({"exception": EXCEPTION} if rank == 1 else {}))
        for rank in range(3)
    ],
    "all die": lambda: _all(2, lambda _: copies(SHAPES), last_step=2, complete=False),
    "shapes differ": lambda: _all(2, lambda rank: copies({"a.w": (4 + rank, 8), "b.w": (4, 8)})),
    "GPU and host": lambda: [
        made_rank(rank, 2, copies({"a.w": (size, size)}), device=device)
        for (device, size), rank in itertools.product((("cpu", 64), ("cuda:0", 2)), range(2))
    ],
}


def layouts() -> dict[str, Any]:
    """Return what is said of each layout."""
    return {name: _said(ranks()) for name, ranks in LAYOUTS.items()}


def _said(ranks: list[RankTrace]) -> dict[str, Any]:
    report = report_of(*ranks)
    overview = report.ranks_overview
    found = orjson.dumps(
        {
            "verdict": report.verdict,
            "overview": None if overview is None else dataclasses.asdict(overview),
            "findings": [dataclasses.asdict(one) for one in report.findings],
            "warnings": [dataclasses.asdict(one) for one in report.warnings],
        },
        option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS,
    )
    said: dict[str, Any] = json.loads(found)
    return {**said, "text": render_text(report).splitlines()}
