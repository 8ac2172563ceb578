"""What is said of a predicted run: verdicts, ranges and doubts, for runs whose bytes are known."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.report import analyze
from memtrace.errors import MemtraceError
from memtrace.forecast.gpus import GPUS, gpu_named, gpus_named
from memtrace.forecast.memory.sharding import NCCL_BYTES
from memtrace.forecast.prediction.doubts import CONVOLUTIONS_PERMILLE, interval_of, lasting_bytes
from memtrace.forecast.prediction.judge import capability_classes, judge_all, placed_trace, usable_bytes
from memtrace.forecast.prediction.placed import Weights, peaks
from memtrace.forecast.prediction.results import Doubt, Range
from memtrace.report.answers.predict import verdict_sentence
from memtrace.report.terminal.report import render_text
from memtrace.schema.cuda_context import USUAL_CONTEXT
from memtrace.store.reading.read import read_trace
from memtrace.store.writing.trace import write_trace
from tests.forecast.predicted_run import DEVICE, MIB, PARAMETER, RULE, predicted_rank, predicted_trace

A100 = gpu_named("a100-40gb")
ACTIVATION = 60 * MIB
# Requests of 10 MiB and more get segments of their own size, in steps of 2 MiB: as much is reserved as was allocated.
LEAST = PARAMETER + ACTIVATION


def sized(num_bytes: int) -> str:
    """Return the name of a GPU that leaves torch so many bytes."""
    return f"{num_bytes + USUAL_CONTEXT.predicted_bytes}B"


def doubts(trace_options: dict[str, object], gpu: str = "a100-40gb") -> dict[str, Doubt]:
    interval = interval_of(predicted_rank(ACTIVATION, **trace_options), DEVICE, gpu_named(gpu))  # type: ignore[arg-type]
    return {one.slug: one for one in interval.doubts}


def test_range_is_without_what_rules_say_and_with_twice_of_it() -> None:
    interval = interval_of(predicted_rank(ACTIVATION), DEVICE, A100)
    expected = Range(low_bytes=LEAST, predicted_bytes=LEAST + RULE, high_bytes=LEAST + 2 * RULE)
    assert interval.allocated == interval.reserved == expected
    rules = next(one for one in interval.doubts if one.slug == "predicted-rules")
    assert (rules.less_bytes, rules.more_bytes) == (RULE, RULE)
    assert interval.context.predicted_bytes == USUAL_CONTEXT.predicted_bytes
    assert interval.device.low_bytes == LEAST + USUAL_CONTEXT.low_bytes
    assert interval.device.predicted_bytes == LEAST + RULE + USUAL_CONTEXT.predicted_bytes
    assert interval.device.high_bytes == LEAST + 2 * RULE + interval.context.high_bytes


def test_what_a_convolution_may_take_is_in_the_range_alone() -> None:
    rank = predicted_rank(ACTIVATION, allowance=100 * MIB, cudnn_benchmark=True)
    interval = interval_of(rank, DEVICE, A100)
    assert interval.allocated.predicted_bytes == LEAST + RULE
    assert interval.allocated.high_bytes == LEAST + 100 * MIB
    assert interval.reserved.high_bytes == LEAST + 2 * RULE + 100 * MIB
    found = next(one for one in interval.doubts if one.slug == "predicted-convolutions")
    assert (found.less_bytes, found.more_bytes) == (0, 100 * MIB - 2 * RULE)
    placed, _ = placed_trace(predicted_trace(ACTIVATION, allowance=100 * MIB), A100)
    assert 100 * MIB not in placed.ranks[0].table("events")["size_bytes"].tolist()


def test_convolutions_that_are_not_tried_out_take_no_more_than_measured_runs_showed() -> None:
    huge, allowance = 2000 * MIB, 5000 * MIB
    chosen, tried, small = (
        interval_of(predicted_rank(huge, allowance=size, cudnn_benchmark=is_tried), DEVICE, A100)
        for size, is_tried in ((allowance, False), (allowance, True), (MIB, False))
    )
    predicted = PARAMETER + huge + RULE
    assert chosen.allocated.high_bytes == predicted + predicted * CONVOLUTIONS_PERMILLE[0] // 1000
    assert chosen.reserved.high_bytes == predicted + predicted * CONVOLUTIONS_PERMILLE[1] // 1000
    assert tried.allocated.high_bytes == PARAMETER + huge + allowance
    # What shapes allow no more for is not allowed for: the margin of every prediction is left.
    assert small.reserved.high_bytes == predicted + predicted * 8 // 100


def test_range_is_never_narrower_than_its_margin() -> None:
    huge = 2000 * MIB
    interval = interval_of(predicted_rank(huge), DEVICE, A100)
    predicted = PARAMETER + huge + RULE
    assert interval.allocated.low_bytes == predicted - predicted * 5 // 100 < predicted - RULE
    assert interval.allocated.high_bytes == predicted + predicted * 5 // 100
    assert interval.reserved.high_bytes == predicted + predicted * 8 // 100


def test_near_a_full_card_less_is_reserved_than_without_end_and_that_is_said() -> None:
    larger = ACTIVATION + 20 * MIB
    trace = predicted_trace(ACTIVATION, second=larger)
    # The segment of the first activation is too small for the second: without end both stay.
    without_end = PARAMETER + ACTIVATION + RULE + larger
    _, roomy = placed_trace(trace, A100)
    assert (roomy.max_reserved_bytes, roomy.num_retries) == (without_end, 0)
    _, tight = placed_trace(trace, gpu_named(sized(PARAMETER + larger + RULE)))
    assert (tight.fits, tight.num_retries, tight.is_close) == (True, 1, True)
    assert tight.max_reserved_bytes == tight.interval.reserved.predicted_bytes == PARAMETER + larger + RULE
    assert tight.interval.reserved.high_bytes == roomy.interval.reserved.high_bytes
    assert tight.headroom_bytes == 0
    assert "once the allocator gave cached memory back" in verdict_sentence(tight)
    assert "cached memory" not in verdict_sentence(roomy)


@pytest.mark.parametrize("slug", ["predicted-bound", "predicted-eager"])
def test_a_run_that_may_be_far_smaller_is_as_small_as_what_lasts(slug: str) -> None:
    rank = predicted_rank(ACTIVATION, notes=(slug,))
    assert lasting_bytes(rank, DEVICE) == PARAMETER
    interval = interval_of(rank, DEVICE, A100)
    assert interval.allocated.low_bytes == interval.reserved.low_bytes == PARAMETER
    assert {one.slug: one.less_bytes for one in interval.doubts}[slug] == ACTIVATION + RULE


def test_each_reason_is_a_doubt_where_it_holds_and_only_there() -> None:
    assert doubts({}).keys() == {"predicted-rules", "predicted-context", "predicted-unmeasured"}
    values = doubts({"notes": ("predicted-values", "predicted-save")})["predicted-values"]
    assert (values.less_bytes, values.more_bytes) == (None, None)
    ranks = doubts({"world_size": 8})["predicted-ranks"]
    assert ranks.more_bytes is not None
    assert ranks.more_bytes >= NCCL_BYTES
    assert "predicted-amd" in doubts({}, "mi300x-192gb")


@given(
    activation=st.integers(1, 200 * MIB),
    allowance=st.integers(0, 200 * MIB),
    notes=st.sets(st.sampled_from(["predicted-bound", "predicted-eager", "predicted-values"])),
    capacity=st.integers(2 * MIB, 600 * MIB),
)
def test_range_holds_the_prediction_and_decides_what_is_close(
    activation: int, allowance: int, notes: set[str], capacity: int
) -> None:
    trace = predicted_trace(activation, allowance=allowance, notes=tuple(notes))
    gpu = gpu_named(sized(capacity))
    (verdict,) = judge_all(trace, [gpu], gpu)
    interval = verdict.interval
    for one in (interval.allocated, interval.reserved, interval.context, interval.device):
        assert one.low_bytes <= one.predicted_bytes <= one.high_bytes
    allocated, reserved = peaks(trace.ranks[0], DEVICE, Weights())
    assert (interval.allocated.predicted_bytes, interval.reserved.predicted_bytes) == (allocated, reserved)
    assert not (verdict.fits and allocated > capacity)
    assert verdict.fits or reserved > capacity
    if not verdict.is_close:
        side = interval.device.high_bytes if verdict.fits else interval.device.low_bytes
        assert (side <= gpu.memory_bytes) == verdict.fits


def test_verdict_says_what_is_left_or_missing_and_where_it_fails() -> None:
    needed = LEAST + RULE
    exact, short = (gpu_named(sized(size)) for size in (needed, needed - 2 * MIB))
    fits, fails = judge_all(predicted_trace(ACTIVATION), [exact, short], exact)
    assert (fits.fits, fits.headroom_bytes, fits.failed, fits.failed_step) == (True, 0, None, None)
    assert fits.is_close, "twice the temporary would not fit"
    assert (fails.fits, fails.headroom_bytes, fails.failed_step) == (False, -2 * MIB, 1)
    assert fails.failed is not None
    assert (fails.failed.size_bytes, fails.failed.allocated_bytes) == (RULE, LEAST)
    assert (fails.peak_allocated_bytes, fails.max_reserved_bytes) == (needed, needed), "with memory without end"
    assert fails.is_close, "without the temporary it would fit"
    assert usable_bytes(exact) == needed


def test_trace_says_the_range_and_its_report_shows_it(tmp_path: Path) -> None:
    placed, verdict = placed_trace(predicted_trace(ACTIVATION, notes=("predicted-values",)), A100)
    path = tmp_path / "predicted.json"
    write_trace(placed, path)
    (rank,) = read_trace((path,)).ranks
    written = rank.header["prediction"]
    assert written["gpu"] == "a100-40gb"
    assert written["fits"] is verdict.fits is True
    assert written["allocated"] == {
        "low_bytes": LEAST, "predicted_bytes": LEAST + RULE, "high_bytes": LEAST + 2 * RULE,
    }  # fmt: skip
    assert [one["slug"] for one in written["doubts"]] == [one.slug for one in verdict.interval.doubts]
    report = analyze(read_trace((path,)))
    said = {note.slug: note.message for note in report.ranks[0].warnings}
    assert said.keys() >= {"predicted-interval", "predicted-rules", "predicted-context", "predicted-values"}
    assert "between 100 MiB and 148 MiB" in said["predicted-interval"]
    assert said["predicted-values"] == "train.py:1: predicted-values"
    text = " ".join(render_text(report).split())
    assert "these figures are predicted, nothing ran on a GPU" in text
    assert report.ranks[0].peak.allocated_bytes == LEAST + RULE


def test_every_known_gpu_is_of_one_class_that_runs_as_its_largest() -> None:
    everything = gpus_named("all")
    assert everything == tuple(GPUS.values())
    classes = capability_classes(everything)
    assert sorted(one.name for _, members in classes for one in members) == sorted(GPUS)
    for largest, members in classes:
        assert {(one.capability, one.is_amd) for one in members} == {(largest.capability, largest.is_amd)}
        assert largest.memory_bytes == max(one.memory_bytes for one in members)
    assert {gpu.capability for gpu in everything if gpu.name.startswith(("a100", "h100"))} == {(8, 0), (9, 0)}
    assert [one.name for one in gpus_named("h100-80gb,h100-80gb, 24GiB,")] == ["h100-80gb", "24GiB"]
    assert gpus_named("") == ()
    with pytest.raises(MemtraceError, match="no GPU 'abacus'"):
        gpus_named("a100-40gb,abacus")
