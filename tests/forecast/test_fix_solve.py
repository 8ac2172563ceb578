"""The choice of modules against every choice there is, and against what a step must hold."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy")

from memtrace.forecast.fixing.solve import TOO_LONG, cheapest, smallest
from memtrace.forecast.fixing.step_model import Candidate, Span, StepModel

GAP = 0.05


def step(blocks: list[tuple[int, int, float]], *, floor: int = 100) -> StepModel:
    """Return a step whose forward makes blocks and whose backward frees them: bytes kept, temporaries, seconds."""
    count = len(blocks)
    level = np.full(4 * count + 2, floor, np.int64)
    candidates = []
    for at, (kept, spike, cost) in enumerate(blocks):
        # Moment at+1: its forward has ended. Of the backward of each block, one moment is its second forward's.
        end, again = 1 + at, 4 * count - 3 * at - 2
        level[end : again + 3] += kept
        level[end] += spike
        candidates.append(
            Candidate(
                name=f"blocks.{at}",
                class_name="Block",
                cost_s=cost,
                cuts=(Span(start=end + 1, end=again, size_bytes=kept),),
                adds=(),
                spikes=(Span(start=again, end=again + 1, size_bytes=spike),),
                around=(),
            )
        )
    return StepModel(level=level, candidates=tuple(candidates), step_s=1.0, other_peak_bytes=0)


def every_choice(model: StepModel) -> list[tuple[int, float]]:
    """Return peak and cost of each set of candidates that may be chosen."""
    found = []
    names = [one.name for one in model.candidates]
    around = {one.name: set(one.around) for one in model.candidates}
    for chosen in chain.from_iterable(combinations(names, count) for count in range(len(names) + 1)):
        if not any(around[one].intersection(chosen) for one in chosen):
            found.append((int(model.level_with(chosen).max()), model.cost_of(chosen)))
    return found


_BLOCK = st.tuples(st.integers(1, 1000), st.integers(0, 300), st.sampled_from([0.01, 0.02, 0.05, 0.3]))


@settings(deadline=None, max_examples=25)
@given(st.lists(_BLOCK, min_size=1, max_size=7), st.floats(0.3, 1.0))
@example(
    [(1, 0, 0.01), (1, 0, 0.01), (390, 0, 0.01), (798, 0, 0.02), (838, 0, 0.02), (21, 0, 0.01), (820, 300, 0.01)], 0.75
)
def test_no_choice_that_fits_is_much_cheaper(blocks: list[tuple[int, int, float]], share: float) -> None:
    model = step(blocks)
    target = int(model.peak_bytes * share)
    fitting = [cost for peak, cost in every_choice(model) if peak <= target]
    found = cheapest(model, target)
    assert (found is not None) == bool(fitting)
    if found is not None:
        assert found.peak_bytes <= target
        assert found.cost_s <= min(fitting) * (1 + GAP)


@settings(deadline=None, max_examples=15)
@given(st.lists(_BLOCK, min_size=1, max_size=6))
def test_the_smallest_peak_is_that_of_all_choices(blocks: list[tuple[int, int, float]]) -> None:
    model = step(blocks)
    assert smallest(model).peak_bytes <= min(peak for peak, _ in every_choice(model)) * (1 + GAP)


def test_a_module_and_what_holds_it_are_not_both_chosen() -> None:
    plain = step([(1000, 0, 0.2), (400, 0, 0.01)])
    outer, inner = plain.candidates
    inside = Candidate(
        name="blocks.0.mlp",
        class_name="MLP",
        cost_s=inner.cost_s,
        cuts=(Span(start=outer.cuts[0].start, end=outer.cuts[0].end, size_bytes=300),),
        adds=(),
        spikes=(),
        around=("blocks.0",),
    )
    model = StepModel(level=plain.level, candidates=(outer, inside), step_s=1.0, other_peak_bytes=0)
    found = cheapest(model, model.peak_bytes - 300)
    assert found is not None
    assert found.chosen == ("blocks.0.mlp",)
    assert cheapest(model, model.peak_bytes - 400).chosen == ("blocks.0",)  # type: ignore[union-attr]


def test_what_fits_as_it_is_is_left_as_it_is() -> None:
    model = step([(1000, 0, 0.2)])
    found = cheapest(model, model.peak_bytes)
    assert found is not None
    assert found.chosen == ()


@settings(deadline=None, max_examples=15)
@given(st.lists(_BLOCK, min_size=1, max_size=7), st.floats(0.3, 1.0))
def test_where_the_solver_takes_too_long_a_choice_is_made_without_it(
    blocks: list[tuple[int, int, float]], share: float
) -> None:
    model = step(blocks)
    target = int(model.peak_bytes * share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memtrace.forecast.fixing.solve._solve", lambda *_args, **_options: TOO_LONG)
        found = cheapest(model, target)
    if found is not None:
        assert found.peak_bytes <= target
        # Nothing in it is there for nothing.
        for one in found.chosen:
            assert int(model.level_with([name for name in found.chosen if name != one]).max()) > target
