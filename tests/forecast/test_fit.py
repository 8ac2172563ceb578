"""The search of `memtrace fit` on simulated runs: straight, bent, jumping, noisy and failing ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.results.report import Note, OomResult, RankReport, Report, State, StepResult
from memtrace.errors import MemtraceError
from memtrace.forecast.fitting.measure import is_out_of_memory, measure, num_steps_of
from memtrace.forecast.fitting.results import Fit, Measured
from memtrace.forecast.fitting.search import LARGEST, Question, find_fit, next_size

Curve = Callable[[int], int]


def measured(num_bytes: int | None, *, device: int | None = None) -> Measured:
    return Measured(
        peak_bytes=num_bytes,
        needed_bytes=num_bytes,
        first_step_peak_bytes=num_bytes,
        device_bytes=device,
        out_of_memory=num_bytes is None,
    )


def oracle(curve: Curve, capacity: int, question: Question) -> int | None:
    """Return the largest size that fits by trying all of them; the curve rises."""
    sizes = range(question.first, question.last + 1, question.multiple)
    return max((size for size in sizes if curve(size) <= capacity), default=None)


def sizes_of(found: Fit) -> list[int]:
    return [run.micro_batch for run in found.runs]


@given(
    base=st.integers(0, 10**10),
    slope=st.integers(1, 10**9),
    answer=st.integers(1, 5000),
    spare=st.floats(0, 0.999),
)
def test_straight_line_takes_four_runs_and_one_for_each_further_power_of_sixteen(
    base: int, slope: int, answer: int, spare: float
) -> None:
    capacity = base + slope * answer + int(spare * slope)
    found = find_fit(Question(capacity_bytes=capacity), lambda size: measured(base + slope * size))
    assert found.micro_batch == answer
    assert found.steady_state_peak_bytes == base + slope * answer
    assert len(found.runs) <= 4 + max(0, math.ceil(math.log(answer / 2, 16)) - 1 if answer > 2 else 0)


@st.composite
def rising(draw: st.DrawFn) -> Curve:
    """A curve that never falls: terms of a power, flat until the optimizer's peak is passed, with jumps."""
    power = draw(st.sampled_from([0.5, 1.0, 1.3, 2.0, 3.0]))
    factor, flat = draw(st.integers(1, 10**7)), draw(st.integers(0, 10**10))
    jump_at, jump = draw(st.integers(1, 400)), draw(st.integers(0, 10**10))
    grain = draw(st.sampled_from([1, 512, 2 * 1024**2]))

    def curve(size: int) -> int:
        level = max(flat, int(factor * size**power) + 10**6) + (jump if size >= jump_at else 0)
        return -(-level // grain) * grain

    return curve


@given(
    curve=rising(),
    at=st.integers(1, 600),
    smallest=st.integers(1, 20),
    span=st.integers(0, 600),
    multiple=st.sampled_from([1, 2, 8]),
    tells_nothing=st.booleans(),
)
def test_any_rising_curve_ends_at_the_largest_that_fits(
    curve: Curve, at: int, smallest: int, span: int, multiple: int, tells_nothing: bool
) -> None:
    capacity = curve(at)
    asked = None if tells_nothing else capacity
    question = Question(smallest=smallest, largest=smallest + span + multiple, multiple=multiple, capacity_bytes=asked)

    def run(size: int) -> Measured:
        return measured(None if tells_nothing and curve(size) > capacity else curve(size), device=capacity)

    found = find_fit(question, run)
    assert found.micro_batch == oracle(curve, capacity, question)
    assert found.capacity_bytes == capacity
    assert len(set(sizes_of(found))) == len(found.runs)
    num_sizes = (question.last - question.first) // multiple + 1
    # A bracket is halved at least every third run; reaching across it takes a few more.
    assert len(found.runs) <= 3 * math.ceil(math.log2(num_sizes + 1)) + 6


@given(
    noise=st.lists(st.integers(-(10**8), 10**8), min_size=1, max_size=50),
    slope=st.integers(1, 10**8),
    answer=st.integers(1, 300),
)
def test_under_noise_the_answer_ran_and_the_next_size_did_not_fit(noise: list[int], slope: int, answer: int) -> None:
    base = 10**9

    def run(size: int) -> Measured:
        return measured(base + slope * size + noise[size % len(noise)])

    capacity = base + slope * answer
    found = find_fit(Question(capacity_bytes=capacity, largest=512), run)
    fits = {one.micro_batch: one.fits for one in found.runs}
    if found.micro_batch is None:
        assert not fits[1]
    else:
        assert fits[found.micro_batch]
        assert found.micro_batch == 512 or not fits[found.micro_batch + 1]
    assert len(found.runs) <= 3 * 9 + 6


@given(curve=rising(), at=st.integers(1, 500), stop=st.integers(0, 30))
def test_a_search_that_broke_off_goes_on_with_the_same_runs(curve: Curve, at: int, stop: int) -> None:
    question = Question(capacity_bytes=curve(at), largest=1000)
    whole = find_fit(question, lambda size: measured(curve(size)))
    done = [(run.micro_batch, run.measured) for run in whole.runs[:stop]]
    new: list[int] = []
    again = find_fit(
        question, lambda size: measured(curve(size)), done=done, on_run=lambda run: new.append(run.micro_batch)
    )
    assert again == whole
    assert new == sizes_of(whole)[stop:]


def test_a_run_that_fails_ends_the_search_and_keeps_those_before() -> None:
    kept: list[int] = []

    def run(size: int) -> Measured:
        if size > 2:
            raise MemtraceError("the run failed")
        return measured(100 * size)

    with pytest.raises(MemtraceError, match="the run failed"):
        find_fit(Question(capacity_bytes=5000), run, on_run=lambda one: kept.append(one.micro_batch))
    assert kept == [1, 2]


def test_nothing_fits_after_one_run() -> None:
    found = find_fit(Question(capacity_bytes=10, smallest=3, multiple=4), lambda size: measured(size * 100))
    assert (found.micro_batch, found.steady_state_peak_bytes, sizes_of(found)) == (None, None, [4])


def test_the_largest_allowed_is_said_to_be_a_limit() -> None:
    found = find_fit(Question(capacity_bytes=10**9, largest=30, multiple=4), measured)
    assert found.micro_batch == 28
    assert "No larger micro-batch than 28" in found.notes[0]


def test_a_command_that_does_not_use_its_micro_batch_is_found_out() -> None:
    sizes: list[int] = []

    def run(size: int) -> Measured:
        sizes.append(size)
        return measured(1000)

    with pytest.raises(MemtraceError, match="needs no more memory") as raised:
        find_fit(Question(capacity_bytes=2000), run)
    assert "{mbs}" in (raised.value.hint or "")
    assert len(sizes) < 10


def test_on_the_cpu_a_capacity_must_be_given_and_the_run_is_not_lost() -> None:
    runs = []
    with pytest.raises(MemtraceError, match="CPU") as raised:
        find_fit(Question(), lambda size: measured(size), on_run=runs.append)
    assert "--capacity" in (raised.value.hint or "")
    assert len(runs) == 1


def test_on_its_own_device_what_ran_fits_however_much_was_reserved() -> None:
    """The allocator keeps what it can: that a run reserved all there is does not say that it needed it."""

    def run(size: int) -> Measured:
        if size > 9:
            return measured(None, device=1000)
        return replace(measured(100 * size, device=1000), needed_bytes=min(1000, 130 * size))

    found = find_fit(Question(), run)
    assert (found.micro_batch, found.steady_state_peak_bytes, found.capacity_bytes) == (9, 900, 1000)


def test_the_steady_state_decides_and_a_larger_first_step_is_said() -> None:
    def run(size: int) -> Measured:
        return replace(measured(100 * size), first_step_peak_bytes=5000 if size == 4 else 10)

    found = find_fit(Question(capacity_bytes=450), run)
    assert found.micro_batch == 4
    assert "first step alone needed more" in found.notes[0]


def test_memory_of_this_machine_that_ends_first_is_said() -> None:
    found = find_fit(Question(capacity_bytes=10**6), lambda size: measured(None if size > 20 else 100 * size))
    assert found.micro_batch == 20
    assert "memory of this machine" in found.notes[0]


def test_another_capacity_judges_old_runs_anew() -> None:
    done = [(size, measured(100 * size)) for size in (1, 2, 10, 11)]
    found = find_fit(Question(capacity_bytes=500), lambda size: measured(100 * size), done=done)
    assert found.micro_batch == 5
    assert sizes_of(found)[:4] == [1, 2, 10, 11]


@pytest.mark.parametrize("sizes", [{"smallest": 5, "largest": 4}, {"smallest": 5, "largest": 7, "multiple": 8}])
def test_a_range_without_sizes_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(MemtraceError, match="no multiple of"):
        Question(**sizes)


def test_no_size_is_larger_than_the_limit() -> None:
    found = find_fit(Question(capacity_bytes=10**18), measured)
    assert found.micro_batch == LARGEST
    assert next_size(Question(capacity_bytes=10**18), found.runs) is None


def state(*, non_torch: int | None = None) -> State:
    return State(
        allocated_bytes=0,
        requested_bytes=0,
        pending_free_bytes=0,
        reserved_bytes=None,
        device_used_bytes=None,
        non_torch_bytes=non_torch,
        by_category={"unknown": 0},
        by_decision={},
    )


def step(
    number: int, peak: int, *, reserved: int | None = None, skipped: bool = False, ended: bool = True
) -> StepResult:
    return StepResult(
        step=number,
        skipped=skipped,
        recorded=True,
        num_microbatches=1,
        start_ns=number,
        end_ns=number + 1 if ended else None,
        peak_allocated_bytes=peak,
        peak_requested_bytes=peak,
        max_reserved_bytes=reserved,
        num_device_mallocs=None,
        host_rss_bytes=None,
        end=state(non_torch=None if reserved is None else 7),
        phases=(),
    )


def rank(*steps: StepResult, device: str = "cuda:0", capacity: int | None = 5000, **more: object) -> RankReport:
    values: dict[str, object] = {
        "rank": 0,
        "device": device,
        "source": "recorded",
        "complete": True,
        "num_events": 0,
        "num_allocations": 0,
        "capacity_bytes": capacity,
        "peak": state(),
        "first_step_peak": None,
        "steady_state_peak": None,
        "end": state(),
        "max_reserved_bytes": None,
        "steps": steps,
        "oom": None,
        "timeline": None,
        "top_modules": (),
        "top_stacks": (),
        "warnings": (),
        **more,
    }
    return RankReport(**values)  # type: ignore[arg-type]


def report(*ranks: RankReport) -> Report:
    return Report(verdict="", ranks=ranks, findings=(), warnings=(), title="t", main_rank=0, next_commands=())


def test_on_an_accelerator_what_is_needed_is_reserved_and_held_beside_it() -> None:
    gpu = rank(step(1, 900, reserved=2000), step(2, 700, reserved=1000), step(3, 800, reserved=1200))
    host = rank(*(step(number, 10**6) for number in (1, 2, 3)), device="cpu", capacity=None)
    found = measure(report(host, gpu), 3)
    assert found is not None
    assert (found.peak_bytes, found.needed_bytes, found.device_bytes) == (800, 1200 + 7, 5000)


def test_skipped_and_later_steps_do_not_count_and_the_fullest_rank_does() -> None:
    skipped = [step(1, 5, skipped=True), step(2, 5, skipped=True)]
    one = rank(*skipped, step(3, 100), step(4, 200), step(5, 300), step(6, 999), device="cpu", capacity=None)
    two = rank(*skipped, step(3, 100), step(4, 200), step(5, 400), step(6, 0, ended=False), device="cpu", capacity=None)
    worker = rank(device="cpu", capacity=None)
    both = report(one, worker, two)
    found = measure(both, 3)
    assert found is not None
    assert found.peak_bytes == 400
    assert num_steps_of(both.ranks) == 4
    assert measure(report(two), 4) is None


OOM = OomResult(
    step=2,
    phase=None,
    module=None,
    time_ns=None,
    request_bytes=1,
    free_bytes=0,
    reserved_unallocated_bytes=None,
    largest_free_block_bytes=None,
    cause="capacity",
)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, False),
        ({"oom": OOM}, True),
        ({"oom": replace(OOM, predicted=True)}, False),
        ({"facts": {"exception": {"type": "torch.OutOfMemoryError", "message": None}}}, True),
        ({"facts": {"exception": {"type": "RuntimeError", "message": "alloc_cpu: can't allocate memory"}}}, True),
        ({"facts": {"exception": {"type": "ValueError", "message": "memory format"}}}, False),
    ],
)
def test_out_of_memory_is_told_from_other_ends(more: dict[str, object], expected: bool) -> None:
    # With steps enough: a program that caught the error and went on with less did not fit all the same.
    found = report(rank(*(step(number, 10) for number in (1, 2, 3)), **more))
    assert is_out_of_memory(found) is expected
    measured_one = measure(found, 3)
    assert measured_one is not None
    assert measured_one.out_of_memory is expected


def test_a_run_that_the_host_killed_did_not_fit_unless_it_was_ended_here() -> None:
    killed = Note(slug="host-kill-possible", message="killed")
    found = report(rank(*(step(number, 10) for number in (1, 2, 3)), warnings=(killed,)))
    assert [getattr(measure(found, 3, was_ended=ended), "out_of_memory", None) for ended in (False, True)] == [
        True,
        False,
    ]
