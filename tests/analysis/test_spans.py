"""Nested stretches of time: the innermost counts."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memtrace.analysis.events.innermost import Spans
from memtrace.store.columns import NULL


def spans(*pairs: tuple[int, int]) -> Spans:
    return Spans.build(np.array([one for one, _ in pairs], np.int64), np.array([two for _, two in pairs], np.int64))


def test_innermost_counts_and_outer_returns_after_it() -> None:
    found = spans((0, 100), (10, 50), (20, 30), (60, 70))
    assert [found.at(time) for time in (5, 10, 25, 30, 49, 55, 65, 80, 100)] == [0, 1, 2, 1, 1, 0, 3, 0, -1]


def test_stretch_that_did_not_end_lasts() -> None:
    assert spans((0, 10), (20, NULL)).at(10**18) == 1


def test_no_stretches_hold_nothing() -> None:
    assert spans().at(5) == -1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=12), st.integers(0, 60))
def test_nested_stretches_equal_a_plain_search(pairs: list[tuple[int, int]], time: int) -> None:
    nested: list[tuple[int, int]] = []
    for start, length in pairs:
        one = (start, start + length)
        if all(
            one[1] <= a or b <= one[0] or (a < one[0] and one[1] < b) or (one[0] < a and b < one[1]) for a, b in nested
        ):
            nested.append(one)
    holding = [at for at, (start, end) in enumerate(nested) if start <= time < end]
    expected = min(holding, key=lambda at: nested[at][1] - nested[at][0], default=-1)
    assert spans(*nested).at(time) == expected
