"""What-if results made up for the tests of their page."""

from __future__ import annotations

from dataclasses import replace

from memtrace.allocator.results import Divergence, Fidelity, SimulatedOom, WhatIf, WhatIfRow

MIB = 1 << 20
EXACT = Fidelity(
    allocations=3853,
    allocations_matched=3853,
    segment_events=65,
    segment_events_matched=65,
    num_inferred_blocks=0,
    first_divergence=None,
    replayable=True,
    reason=None,
)


def row(name: str, allocated: int, reserved: int, *, capacity: int | None = None, is_model: bool = True) -> WhatIfRow:
    """Return a row that fits; sizes in MiB."""
    return WhatIfRow(
        name=name,
        peak_allocated_bytes=allocated * MIB,
        max_reserved_bytes=reserved * MIB,
        peak_requested_bytes=allocated * MIB - 77,
        num_device_mallocs=reserved // 10,
        num_alloc_retries=0,
        fits=True,
        oom=None,
        capacity_bytes=None if capacity is None else capacity * MIB,
        is_model=is_model,
    )


def failing(name: str, *, capacity: int) -> WhatIfRow:
    """Return a row that runs out of memory just under its capacity, in MiB."""
    oom = SimulatedOom(
        event=683,
        request_bytes=38 * MIB,
        segment_bytes=40 * MIB,
        reserved_bytes=(capacity - 30) * MIB,
        allocated_bytes=(capacity - 60) * MIB,
        num_alloc_retries=1,
    )
    tried = row(name, capacity - 60, capacity - 26, capacity=capacity)
    return replace(tried, fits=False, oom=oom, num_alloc_retries=1)


def result(rank: int | None = 0, *, advice: str | None = None) -> WhatIf:
    """Return a result with a row that fits a capacity, one that does not, and a setting."""
    rows = (
        row("baseline", 663, 750, is_model=False),
        row("1.00 GiB", 663, 750, capacity=1024),
        failing("600 MiB", capacity=600),
        row("expandable_segments:True", 651, 710),
    )
    return WhatIf(rank=rank, device="cuda:0", fidelity=EXACT, rows=rows, advice=advice)


def diverging() -> WhatIf:
    """Return a result whose replay left the record."""
    divergence = Divergence(event=7, expected="took one", recorded="took another", cause="a graph")
    fidelity = replace(EXACT, allocations_matched=3850, num_inferred_blocks=3, first_divergence=divergence)
    return replace(result(), fidelity=fidelity)


def hostile(text: str) -> WhatIf:
    """Return a result in which every text is the given one."""
    base = diverging()
    divergence = Divergence(event=7, expected=text, recorded=text, cause=text)
    rows = tuple(replace(one, name=text) for one in base.rows)
    fidelity = replace(base.fidelity, first_divergence=divergence, reason=text)
    return replace(base, device=text, advice=text, rows=rows, fidelity=fidelity)
