"""The peak of a recording's own allocations: what was there before never counts, whatever happens to it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.asked.peak_of_own_allocations import own_peak
from memtrace.analysis.report import analyze
from tests.analysis.small_trace import event_rows, initial_block, owner, rank_trace, trace, window

KEPT, FREED = 1, 2


@given(st.integers(1, 10**6), st.lists(st.tuples(st.booleans(), st.integers(1, 1000)), min_size=1, max_size=30))
def test_it_is_the_most_that_the_events_themselves_come_to(before: int, asked: list[tuple[bool, int]]) -> None:
    events, live, levels = [("free_completed", FREED, before)], list[tuple[int, int]](), [0]
    for at, (frees, size) in enumerate(asked, start=10):
        if frees and live:
            events.append(("free_completed", *live.pop(0)))
        else:
            events.append(("alloc", at, size))
            live.append((at, size))
        levels.append(sum(held for _, held in live))
    made = rank_trace(
        events=event_rows(events, stack=None),
        windows=[window(0, len(events), initial=2 * before)],
        initial_blocks=[initial_block(KEPT, before), initial_block(FREED, before)],
        owners=[owner(5, KEPT, before, "parameter")],
    )
    (rank,) = analyze(trace(made), with_map=True).ranks
    assert rank.allocation_map is not None
    peak = own_peak(rank.allocation_map)
    assert peak.num_bytes == max(levels)
    assert sum(peak.by_category.values()) == peak.num_bytes
    assert sum(one.num_bytes for one in peak.stacks) == peak.num_bytes
    assert "parameter" not in peak.by_category
    assert peak.measures == "requested"
