"""Budgets and baselines: figures are those of the events, every rank counts, and what is not there is never a pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.asked.check import check, parse_budget
from memtrace.analysis.asked.check_figures import CATEGORIES, MOMENTS
from memtrace.analysis.report import analyze
from memtrace.analysis.results.diagnosis import Leak
from memtrace.analysis.results.report import Note, OomResult, PredictedPeak, Report, StackRow
from memtrace.errors import MemtraceError
from tests.analysis.small_trace import event_rows, owner, rank_trace, step, trace, window

SIZES = st.integers(1, 10**6)


def run(weight: int, more: int, *, rank: int | None = None, device: str = "cpu", **tables: Any) -> Any:
    """Return a rank that holds a parameter through two steps, and within the second something more."""
    events = [("alloc", 1, weight), ("alloc", 2, more), ("free_completed", 2, more)]
    rows: dict[str, Any] = {
        "events": event_rows(events, device=device, stack=None),
        "windows": [window(0, 3, initial=0)],
        "steps": [step(0, 0, 8), step(1, 8, 15), step(2, 15, 40)],
        "owners": [owner(15, 1, weight, "parameter", device=device)],
    }
    return rank_trace(header={"rank": rank}, **(rows | tables))


def report(weight: int, more: int, **how: Any) -> Report:
    return analyze(trace(run(weight, more, **how)))


def budget_error(of: Report, *texts: str, **how: Any) -> str:
    """Return the message with which a check is refused."""
    with pytest.raises(MemtraceError) as caught:
        check(of, [parse_budget(text) for text in texts], **how)
    return caught.value.message


@given(SIZES, SIZES)
def test_a_budget_is_kept_up_to_its_limit_and_a_strict_one_below_it(weight: int, more: int) -> None:
    values = {"peak": weight + more, "first_step_peak": weight, "steady_peak": weight + more, "end": weight}
    values |= {"parameter": weight, "end.parameter": weight, "unknown": more, "step_end.parameter": weight}
    ran = report(weight, more)
    for name, value in values.items():
        texts = [f"{name}={value}", f"{name}<={value}", f"{name}<{value}", f"{name}<{value + 1}", f"{name}={value - 1}"]
        result = check(ran, [parse_budget(text) for text in texts])
        assert [one.value_bytes for one in result.budgets] == [value] * 5
        assert [one.passed for one in result.budgets] == [True, True, False, True, False], name
        assert not result.passed


@given(st.tuples(*[SIZES] * 4))
def test_every_rank_must_keep_a_budget_and_the_worst_is_shown(sizes: tuple[int, int, int, int]) -> None:
    (weight_0, more_0, weight_1, more_1), limit = sizes, 10**6
    ran = analyze(trace(run(weight_0, more_0, rank=0), run(weight_1, more_1, rank=1)))
    (one,) = check(ran, [parse_budget(f"peak={limit}")]).budgets
    peaks = [weight_0 + more_0, weight_1 + more_1]
    assert one.value_bytes == max(peaks)
    assert one.rank == peaks.index(max(peaks))
    assert one.num_over == sum(peak > limit for peak in peaks)
    assert one.passed == (max(peaks) <= limit)


def test_what_the_trace_does_not_have_is_an_error() -> None:
    ran = report(100, 50)
    assert "reserved of cpu is not known" in budget_error(ran, "reserved=1GiB")
    assert "nothing in it was attributed to communication" in budget_error(ran, "communication=1GiB")
    short = report(100, 50, steps=[step(0, 0, 8), step(1, 8, None)])
    assert "no step was recorded to its end" in budget_error(short, "step_end=1GiB")
    nothing = analyze(trace(rank_trace()))
    assert "no history" in budget_error(nothing, "peak=1GiB")
    assert "no memory was recorded" in budget_error(nothing, "end=1GiB")
    assert "no memory was recorded" in budget_error(analyze(trace()), "end=1GiB")
    assert "no history" in budget_error(ran, baseline=nothing)


def test_a_rank_without_a_category_that_others_have_has_none_of_it_unless_nothing_is_known_of_it() -> None:
    budget = parse_budget("parameter=100")
    with_other = run(70, 50, rank=1, owners=[owner(15, 1, 70, "buffer")])
    result = check(analyze(trace(run(100, 50, rank=0), with_other)), [budget])
    assert (result.passed, result.budgets[0].num_ranks) == (True, 2)
    blind = run(70, 50, rank=1, owners=[], steps=[])
    assert "rank 1 (cpu)" in budget_error(analyze(trace(run(100, 50, rank=0), blind)), "parameter=100")


def test_on_an_accelerator_the_memory_of_the_host_does_not_count() -> None:
    both = event_rows([("alloc", 1, 100)], device="cuda:0", stack=None) + event_rows([("alloc", 2, 900)], stack=None)
    ran = report(100, 50, device="cuda:0", events=both, windows=[window(0, 2, initial=0)], owners=[])
    assert {rank.device for rank in ran.ranks} == {"cpu", "cuda:0"}
    (one,) = check(ran, [parse_budget("end=100")]).budgets
    assert (one.value_bytes, one.device, one.num_ranks) == (100, "cuda:0", 1)


def test_a_predicted_steady_peak_counts_and_is_said_to_be_predicted() -> None:
    ran = report(100, 50)
    peak = ran.ranks[0].peak
    fields = {name: getattr(peak, name) for name in peak.__dataclass_fields__} | {"predicted": True}
    more = {"low_bytes": 140, "high_bytes": 190, "assumptions": (), "needed_bytes": 150, "capacity_bytes": None}
    predicted = PredictedPeak(**fields, **more, fits=None)
    result = check(
        replace(ran, ranks=(replace(ran.ranks[0], steady_state_peak=predicted),)),
        [parse_budget("steady_peak<150"), parse_budget("peak=150"), parse_budget("steady_peak.parameter=100")],
    )
    assert [(one.passed, one.predicted, one.low_bytes, one.high_bytes) for one in result.budgets] == [
        (False, True, 140, 190),
        (True, False, None, None),
        (True, True, None, None),
    ]


def test_a_run_that_died_or_of_which_ranks_are_missing_never_passes() -> None:
    ran, budget = report(100, 50), parse_budget("peak=1GiB")
    died = dict.fromkeys(OomResult.__dataclass_fields__) | {"predicted": False, "explanation": ()}
    assert check(ran, [budget]).passed
    oom = replace(ran.ranks[0], oom=OomResult(**died))
    assert not check(replace(ran, ranks=(oom,)), [budget]).passed
    assert check(replace(ran, ranks=(replace(oom, oom=OomResult(**(died | {"predicted": True}))),)), [budget]).passed
    missing = replace(ran, warnings=(Note(slug="missing-ranks", message="no trace of 1 of them"),))
    result = check(missing, [budget])
    assert (result.passed, result.problems) == (False, ("no trace of 1 of them",))


@given(st.tuples(*[SIZES] * 4), st.integers(0, 100))
def test_a_baseline_allows_each_figure_its_share_of_the_peak(sizes: tuple[int, int, int, int], tolerance: int) -> None:
    weight_a, more_a, weight_b, more_b = sizes
    ran, baseline = report(weight_b, more_b), report(weight_a, more_a)
    result = check(ran, baseline=baseline, tolerance_pct=tolerance)
    assert result.baseline is not None
    peak = weight_a + more_a
    limit = (peak * tolerance + 50) // 100
    growth = {"peak": weight_b + more_b - peak, "steady_peak": weight_b + more_b - peak}
    growth |= {"parameter": weight_b - weight_a, "unknown": more_b - more_a}
    assert {one.name: one.delta_bytes for one in result.baseline.changes} == growth
    assert {one.name: one.passed for one in result.baseline.changes} == {
        name: delta <= limit for name, delta in growth.items()
    }
    assert {one.limit_bytes for one in result.baseline.changes} == {limit}
    assert result.passed == (growth["peak"] <= limit)
    assert result.baseline.verdict == (
        "WORSE" if not result.passed else "BETTER" if -growth["peak"] > limit else "SAME"
    )
    every = check(ran, baseline=baseline, tolerance_pct=tolerance, gates=["categories"])
    assert every.passed == all(delta <= limit for delta in growth.values())
    one = check(ran, baseline=baseline, tolerance_pct=tolerance, gates=["parameter"])
    assert one.passed == all(growth[name] <= limit for name in ("peak", "parameter"))


def test_a_lower_peak_made_of_more_of_something_is_better_and_no_failure() -> None:
    result = check(report(200, 10), baseline=report(100, 900), tolerance_pct=1)
    assert result.passed
    assert result.baseline is not None
    assert result.baseline.verdict == "BETTER"
    assert [one.name for one in result.baseline.changes if not one.passed] == ["parameter"]


def test_what_is_reserved_the_steady_state_and_a_leak_gate_beside_the_peak() -> None:
    def with_more(reserved: int | None, leak: int) -> Report:
        ran = report(100, 50)
        leaks = () if not leak else (Leak(**(dict.fromkeys(Leak.__dataclass_fields__) | {"bytes_per_step": leak})),)
        return replace(ran, ranks=(replace(ran.ranks[0], max_reserved_bytes=reserved, leaks=leaks),))

    def failed(now: Report, before: Report) -> list[str]:
        result = check(now, baseline=before, tolerance_pct=5)
        assert result.baseline is not None
        assert result.passed == (result.baseline.verdict != "WORSE")
        return [one.name for one in result.baseline.changes if one.gates and not one.passed]

    base = with_more(1000, 0)
    assert failed(with_more(1050, 0), base) == []
    assert failed(with_more(1051, 0), base) == ["reserved"]
    assert failed(with_more(1000, 1), base) == ["leak"]
    assert failed(with_more(1000, 105), with_more(1000, 100)) == []
    assert failed(with_more(1000, 106), with_more(1000, 100)) == ["leak"]
    assert failed(with_more(None, 0), base) == []


def test_a_run_that_died_of_an_exception_fails_whatever_its_figures_are() -> None:
    ran, budget = report(100, 50), parse_budget("peak=1GiB")
    facts = {"exit_status": 1, "exception": {"type": "ValueError", "message": "no", "stack": []}}
    result = check(replace(ran, ranks=(replace(ran.ranks[0], facts=facts),)), [budget])
    assert not result.passed
    assert result.problems[0].startswith("The run died of ValueError after step 2: no.")
    stopped = replace(ran.ranks[0], facts={"exit_status": -15})
    assert check(replace(ran, ranks=(stopped,)), [budget]).passed


def test_what_grew_is_told_by_the_lines_of_the_program() -> None:
    def with_stack(more: int) -> Report:
        ran = report(100, more)
        frames = [
            ("/env/site-packages/torch/nn/a.py:1 f", "train.py:7 main"),
            ("ones", "train.py:7 main"),
            ("g.py:1 g",),
        ]
        sizes = [more, 2 * more, 5]
        rows = tuple(
            StackRow(frames=one, num_bytes=size, num_allocations=1, category="unknown", by_category={"unknown": size})
            for one, size in zip(frames, sizes, strict=True)
        )
        return replace(ran, ranks=(replace(ran.ranks[0], top_stacks=rows),))

    result = check(with_stack(90), baseline=with_stack(50), tolerance_pct=10)
    assert result.baseline is not None
    assert [(one.frames, one.delta_bytes) for one in result.baseline.grown] == [(("train.py:7 main",), 3 * 40)]


def test_a_rank_of_the_baseline_that_is_gone_is_an_error() -> None:
    two = analyze(trace(run(100, 50, rank=0), run(100, 50, rank=1)))
    assert "has no rank 1 cpu" in budget_error(report(100, 50, rank=0), baseline=two)


@pytest.mark.parametrize("name", [*MOMENTS, "reserved", *CATEGORIES, "end.parameter", "step_end.gradient"])
def test_every_name_is_one_of_a_budget(name: str) -> None:
    assert parse_budget(f" {name} < 1.5 MiB ").limit_bytes == 3 * 2**19


@pytest.mark.parametrize(
    "text", ["", "peak", "peak>1GiB", "peak>=1", "peak==1", "peak=", "peak=x", "pick=1", "peak.x=1", "parameter.end=1"]
)
def test_what_is_no_budget_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(MemtraceError) as caught:
        parse_budget(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("budget", "sizes"),
    [("peak=0", [90, 80, 70]), ("peak=1GiB", []), ("parameter=0", [80, 60]), ("end=0", []), ("end.parameter=0", [])],
)
def test_a_broken_budget_for_the_peak_names_the_three_largest_stacks_of_its_category(
    budget: str, sizes: list[int]
) -> None:
    kinds = {90: "unknown", 80: "parameter", 70: "unknown", 60: "parameter"}
    rows = tuple(
        StackRow(
            frames=("train.py:1 main",), num_bytes=size, num_allocations=1, category=kind, by_category={kind: size}
        )
        for size, kind in kinds.items()
    )
    ran = report(100, 50)
    (result,) = check(replace(ran, ranks=(replace(ran.ranks[0], top_stacks=rows),)), [parse_budget(budget)]).budgets
    assert [row.num_bytes for row in result.largest] == sizes
