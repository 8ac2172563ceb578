"""Each named threshold: what lies just below it, at it and just above it, and what its own line says that it means."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from memtrace.analysis.advice.case import WORTH_SAYING_SHARE, Case
from memtrace.analysis.communication import findings as communication_findings
from memtrace.analysis.communication.communication import communication_of_rank
from memtrace.analysis.device.device_history import build_history
from memtrace.analysis.diagnosis import fragmentation_findings, growth, leak_findings, leaks
from memtrace.analysis.first_step import effects as first_step
from memtrace.analysis.ranks import findings as ranks_findings
from memtrace.analysis.ranks import outliers as ranks_outliers
from memtrace.analysis.results.diagnosis import FragmentationMoment, FragmentationResult, PoolState
from memtrace.analysis.results.time import TimeSplit
from memtrace.analysis.time import findings as time_findings
from memtrace.analysis.time.step_times import step_times
from memtrace.store.trace import RankTrace
from tests.analysis.small_replicas import bucket, timing
from tests.analysis.test_communication import loop as replicated
from tests.analysis.test_first_step import FREE_GRADIENT, FREE_OUTPUT, LOGITS, PARAMETER, PLAIN, effects, gradient, run
from tests.analysis.test_first_step import adamw as adamw_rows
from tests.analysis.test_leaks import Kept, leaks_of, loop
from tests.fake_report import gpt_report

KIB, MIB, MS = 2**10, 2**20, 10**6


# Leaks


@pytest.mark.parametrize(("num_bytes", "is_leak"), [(4095, False), (4096, True), (4097, True)])
def test_a_leak_is_4096_bytes_a_step(num_bytes: int, is_leak: bool) -> None:
    assert leaks._MIN_BYTES_A_STEP == 4096
    assert bool(leaks_of(loop([Kept(num_bytes, None)], num_steps=6))) is is_leak


@pytest.mark.parametrize(("above", "is_leak"), [(-100_000, True), (0, True), (99_999, True), (100_000, False)])
def test_a_leak_doubles_the_peak_within_100_000_steps(above: int, is_leak: bool) -> None:
    assert leaks._STEPS_TO_DOUBLE == 100_000
    # Of 10,000 bytes a step, five are there at the peak of 1e9 bytes.
    things = [Kept(10_000, None), Kept(10**9 - 5 * 10_000 + above, 0, line=2)]
    assert bool(leaks_of(loop(things, num_steps=5))) is is_leak


@pytest.mark.parametrize(("num_steps", "is_leak"), [(3, False), (4, True), (5, True)])
def test_a_leak_grows_in_three_steps_after_the_first(num_steps: int, is_leak: bool) -> None:
    assert growth._MIN_STEPS == 3
    assert bool(leaks_of(loop([Kept(9 * KIB, None)], num_steps=num_steps))) is is_leak


@pytest.mark.parametrize(("lost_kib", "is_leak"), [(699, True), (700, True), (701, False)])
def test_a_place_that_loses_more_than_a_tenth_of_what_it_gains_replaces_things(lost_kib: int, is_leak: bool) -> None:
    assert growth._REPLACED_SHARE == 0.1
    # Seven steps gain 1000 KiB each; in step 6 the place makes as much, and something older of it goes.
    kept = Kept(1000 * KIB, None, stack=0)
    older = Kept((1000 + lost_kib) * KIB, 5, first=1, last=1, stack=0)
    assert bool(leaks_of(loop([kept, older], num_steps=9))) is is_leak


@pytest.mark.parametrize(("num_steps", "is_leak"), [(5, False), (6, True)])
def test_of_four_judged_steps_each_must_show_growth_and_of_five_not(num_steps: int, is_leak: bool) -> None:
    assert growth._FEW_STEPS == 4
    # Steps from 2 on are judged; step 3 makes nothing.
    things = [Kept(9 * KIB, None, last=2, stack=0), Kept(9 * KIB, None, first=4, stack=0)]
    assert bool(leaks_of(loop(things, num_steps=num_steps))) is is_leak


@pytest.mark.parametrize(("modules", "cause"), [(1, "outputs"), (2, "outputs"), (3, "graph"), (4, "graph")])
def test_outputs_of_three_modules_are_a_graph(modules: int, cause: str) -> None:
    assert leaks._GRAPH_MODULES == 3
    things = [Kept(9 * KIB, None, line=at, module=f"layers.{at}") for at in range(modules)]
    (leak,) = leaks_of(loop(things, num_steps=6))
    assert (leak.cause, leak.num_modules) == (cause, modules)


@pytest.mark.parametrize(("above", "severity"), [(-1, "error"), (0, "error"), (1, "warning")])
def test_a_leak_that_doubles_the_peak_within_10_000_steps_ends_the_run(above: int, severity: str) -> None:
    assert leak_findings._SOON_STEPS == 10_000
    peak = 10_000 * 5000
    rank = loop([Kept(5000, None), Kept(peak - 5 * 5000 + above, 0, line=2)], num_steps=5)
    history = build_history(rank, "cpu", owns_marks=False)
    (found,) = leak_findings.leak_findings(Case(history), leaks.find_piles(history))
    assert found.severity == severity


# The first step


@pytest.mark.parametrize(("num_bytes", "is_named"), [(49, False), (50, True), (51, True)])
def test_an_effect_explains_a_two_hundredth_of_the_peak(num_bytes: int, is_named: bool) -> None:
    assert first_step._WORTH_SAYING_SHARE == 1 / 200
    # The peak is in backward: parameters, their gradients, logits and an activation, 10,000 bytes together.
    activation = 10_000 - 2 * PARAMETER - LOGITS
    plain = [(at, (action, address, activation if address == 2 else size)) for at, (action, address, size) in PLAIN]
    spike = [(13, ("alloc", 9, num_bytes)), (14, ("free_completed", 9, num_bytes))]
    whole: list[Any] = [*plain, FREE_OUTPUT, FREE_GRADIENT]
    found = effects(run([*whole, *spike], whole, stacks={2: 0, 3: 1, 9: 2}, owners=[gradient(1)]))
    assert ("one-time-allocations" in found) is is_named


@pytest.mark.parametrize(("num_bytes", "is_named"), [(499, False), (500, True), (501, True)])
def test_temporaries_of_half_the_parameters_are_made_of_all_of_them(num_bytes: int, is_named: bool) -> None:
    assert (first_step._FOREACH_SHARE, PARAMETER) == (0.5, 1000)
    made: list[Any] = [(31, ("alloc", 6, num_bytes)), (32, ("free_completed", 6, num_bytes))]
    rank = run([*PLAIN, *made, FREE_OUTPUT, FREE_GRADIENT], owners=[gradient(1)], optimizers=adamw_rows(foreach=True))
    assert ("foreach-temporaries" in effects(rank)) is is_named


# Time and communication


@pytest.mark.parametrize(("lost_ns", "counts"), [(0, False), (1999, False), (2000, True), (2001, True)])
def test_time_advice_is_given_from_a_fiftieth_of_the_step(lost_ns: int, counts: bool) -> None:
    assert time_findings._MIN_SHARE == 50
    names = [name for name in TimeSplit.__dataclass_fields__ if name != "step"]
    split = TimeSplit(step=1, **(dict.fromkeys(names, 0) | {"end_ns": 100_000}))  # type: ignore[arg-type]
    assert time_findings._Mean(splits=(split,), has_steps=True).counts(lost_ns) is counts


def replicas_found(exposed_ns: int, *, sync: tuple[bool, ...]) -> dict[str, str]:
    """Return the findings and severities of steps of 100 ms whose reductions are exposed for so long."""
    timings = [timing(at, backward=8 * MS, communication=exposed_ns + MS, overlap=MS) for at in (2, 3)]
    rank: RankTrace = replicated(sync=sync, buckets=[bucket(0, 2048)], reducer_timings=timings)
    exchanged = communication_of_rank(rank)
    assert exchanged is not None
    found = communication_findings.communication_findings(rank, exchanged, step_times(rank), None)
    return {one.slug: one.severity for one in found}


@pytest.mark.parametrize(("above", "is_told"), [(-1, False), (0, True), (1, True)])
def test_exposed_reductions_are_told_from_a_fiftieth_of_the_step(above: int, is_told: bool) -> None:
    assert communication_findings._MIN_SHARE == 50
    assert ("exposed-communication" in replicas_found(2 * MS + above, sync=(True,))) is is_told


@pytest.mark.parametrize(("above", "severity"), [(-1, "info"), (0, "warning"), (1, "warning")])
def test_needless_reductions_of_a_fiftieth_of_the_step_are_a_warning(above: int, severity: str) -> None:
    assert replicas_found(2 * MS + above, sync=(True, True))["no-sync"] == severity


# Fragmentation


def fragmented(wasted: int, reserved: int) -> bool:
    """Return whether so many wasted bytes of so many reserved ones are told."""
    pool = PoolState(
        pool="large",
        num_segments=1,
        reserved_bytes=reserved,
        allocated_bytes=0,
        pending_bytes=0,
        requested_bytes=0,
        free_bytes=wasted,
        split_bytes=wasted,
        largest_free_block_bytes=wasted,
    )
    result = FragmentationResult(
        is_model=False,
        moments=(FragmentationMoment(name="largest reserved", step=None, event=1, pools=(pool,)),),
        max_reserved_bytes=reserved,
        num_growths=2,
        num_fragmented_growths=1,
        fragmented_bytes=wasted,
        wasted_bytes=wasted,
        where=None,
        requested_at=None,
    )
    history: Any = SimpleNamespace(rank=SimpleNamespace(rank=0))
    return bool(fragmentation_findings.fragmentation_findings(history, result, None))


def test_fragmentation_is_told_from_40_mib_and_15_per_cent() -> None:
    assert fragmentation_findings._WORTH_SAYING_BYTES == 40 * MIB
    assert fragmentation_findings._WORTH_SAYING_SHARE == 0.15
    small = [fragmented(40 * MIB + above, 100 * MIB) for above in (-1, 0, 1)]
    large = [fragmented(150 * MIB + above, 1000 * MIB) for above in (-1, 0, 1)]
    assert small == large == [False, True, True]


# Ranks


def outlying(*peaks: int) -> list[int]:
    """Return the ranks that stand out among peaks."""
    one = gpt_report().ranks[0]
    ranks = {at: replace(one, peak=replace(one.peak, allocated_bytes=peak)) for at, peak in enumerate(peaks)}
    return [found.rank for found in ranks_outliers.outliers(ranks)]


def test_a_rank_stands_out_beyond_a_twentieth_of_the_middle() -> None:
    assert ranks_outliers.MIN_SHARE == 0.05
    found = [outlying(1000, 1000, 1000, 1000, peak) for peak in (949, 950, 1049, 1050, 1051)]
    assert found == [[4], [], [], [], [4]]


def test_a_rank_stands_out_beyond_five_times_the_usual_difference() -> None:
    assert ranks_outliers._TIMES_TYPICAL == 5
    # Three of five ranks are 20 away from the middle one.
    found = [outlying(980, 980, 1000, 1020, peak) for peak in (1099, 1100, 1101)]
    assert found == [[], [], [4]]


def test_no_more_ranks_than_eight_are_named() -> None:
    assert ranks_outliers.MAX_OUTLIERS == 8
    assert len(outlying(*[1000] * 21, *range(2000, 2010))) == 8


def test_what_the_other_thresholds_of_advice_are() -> None:
    # Cuts of less than a fiftieth of the peak are no advice; copies that would save less than that are none either.
    assert WORTH_SAYING_SHARE == 1 / 50 == 1 / ranks_findings._MIN_SAVING
