"""Runs for the browser tests of the map: an exact answer for every moment, and hostile names."""

from __future__ import annotations

import random
from functools import cache

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import AllocationMap, Report
from memtrace.store.snapshots.torch_snapshot import read_snapshot
from tests.analysis.small_trace import (
    event_rows,
    initial_block,
    owner,
    phase,
    rank_trace,
    saved,
    scope,
    step,
    trace,
    window,
)
from tests.builders import Frame, snapshot, trace_of

HOSTILE_NAME = "<img src=x onerror=alert(1)>"
HOSTILE_FILE = "</script><script>alert(2)</script>.py"
STACKS: tuple[tuple[Frame, ...], ...] = (
    (("/home/me/model.py", 7, "forward"), ("/home/me/train.py", 40, "main")),
    (("/env/site-packages/torch/nn/functional.py", 2, "linear"), ("/home/me/model.py", 9, "attend")),
    ((HOSTILE_FILE, 3, HOSTILE_NAME), ("/home/me/train.py", 41, "main")),
    (("??", 0, "torch::autograd::Engine::thread_main()"),),
)
NUM_PLACES = 40
MODULES = ("blocks.0.attn", "blocks.1.mlp", HOSTILE_NAME)


@cache
def device_report() -> Report:
    """Return the report of a snapshot: 350 allocs and frees at 40 addresses, each a segment of its own."""
    draw = random.Random(5)
    built = snapshot().live_before(0x900000000, 3 * 2**20)
    live: set[int] = set()
    for _ in range(350):
        at = draw.randrange(NUM_PLACES)
        address = 0x100000000 + at * 0x10000000
        if at in live:
            built.free(address)
            live.remove(at)
        else:
            built.alloc(address, draw.randrange(512, 8 * 2**20), frames=draw.choice(STACKS))
            live.add(at)
    return analyze(trace_of(read_snapshot(built.build(), where="built")), with_map=True)


@cache
def host_report() -> Report:
    """Return the report of a recorded run on the CPU: two steps with phases, modules, an owner and saved tensors."""
    events = [("alloc", 0x1000, 4 << 20), ("alloc", 0x900000, 1 << 20)]
    for number in range(2):
        base = 0x2000000 + number * 0x1000000
        events += [("alloc", base + at * 0x100000, (at + 1) << 16) for at in range(8)]
        events += [("free_completed", base + at * 0x100000, (at + 1) << 16) for at in reversed(range(8))]
    rank = rank_trace(
        events=event_rows(events),
        windows=[window(0, len(events), initial=512)],
        steps=[step(1, 15, 185), step(2, 185, 345)],
        phases=[phase("forward", 1, 25, 105), phase("backward", 1, 105, 185), phase("forward", 2, 185, 265)],
        scopes=[scope(name, 25 + 27 * at, 52 + 27 * at) for at, name in enumerate(MODULES)],
        owners=[owner(15, 0x1000, 4 << 20, "parameter") | {"name": f"w {HOSTILE_NAME}", "shape": "1024x1024"}],
        saved=[saved(104, 0x2000000, 1 << 16), saved(104, 0x2100000, 2 << 16)],
    )
    return analyze(trace(rank), with_map=True)


@cache
def gap_report() -> Report:
    """Return the report of a recording with a gap: two windows, each with blocks and bytes from before."""
    first = [("alloc", 0x1000 * at, 1000 * at) for at in range(1, 20)]
    second = [("alloc", 0x900000 + 0x1000 * at, 700 * at) for at in range(1, 15)] + [("free_completed", 0x901000, 700)]
    rows = event_rows(first) + [row | {"time_ns": row["time_ns"] + 5000} for row in event_rows(second)]
    late = window(len(first), len(second), initial=9000) | {"start_ns": 5005, "end_ns": 5150}
    rank = rank_trace(
        events=rows,
        windows=[window(0, len(first), initial=5000), late],
        initial_blocks=[initial_block(0x100, 3000), initial_block(0x200000, 4000, window=1)],
        steps=[step(1, 5, 200), step(2, 5005, 5150)],
    )
    return analyze(trace(rank), with_map=True)


def map_of(report: Report) -> AllocationMap:
    """Return the map of the first rank."""
    found = report.ranks[0].allocation_map
    assert found is not None
    return found
