"""What is said of a run on torch's own CUDA code, for runs whose bytes are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memtrace.forecast.gpus import gpu_named
from memtrace.forecast.prediction.doubts import CONVOLUTIONS_PERMILLE
from memtrace.forecast.prediction.driverless import driverless_trace
from memtrace.forecast.prediction.judge import placed_trace
from memtrace.forecast.prediction.results import Engine
from memtrace.report.answers.predict import verdict_sentence
from memtrace.schema.cuda_context import USUAL_CONTEXT
from memtrace.schema.predicted import DRIVERLESS
from memtrace.store.trace import Trace
from memtrace.units import format_bytes
from tests.forecast.predicted_run import MIB, PARAMETER, RULE, predicted_trace

ACTIVATION = 60 * MIB
NEEDED = PARAMETER + ACTIVATION + RULE
A100 = gpu_named("a100-40gb")
TOO_SMALL = gpu_named(f"{NEEDED + USUAL_CONTEXT.predicted_bytes - 2 * MIB}B")
ENGINE = Engine(name=DRIVERLESS, why="a test")


def left_by_torch(*, status: int = 0, fails: bool = False, **header: Any) -> Trace:
    """Return what a run leaves: addresses and segments; where it fails, up to the request that finds no memory."""
    notes = header.pop("notes", ())
    placed, _ = placed_trace(predicted_trace(ACTIVATION, notes=notes), TOO_SMALL if fails else A100)
    (rank,) = placed.ranks
    return replace(
        placed,
        header={**placed.header, "exit_status": status},
        ranks=(replace(rank, header={**rank.header, **header}),),
    )


def not_again() -> Trace:
    raise AssertionError("a second run")


def test_bytes_are_those_of_torch_and_the_trace_says_which_engine() -> None:
    trace, verdict = driverless_trace(left_by_torch(), A100, ENGINE, not_again)
    assert (verdict.fits, verdict.peak_allocated_bytes, verdict.max_reserved_bytes) == (True, NEEDED, NEEDED)
    assert verdict.headroom_bytes == A100.memory_bytes - USUAL_CONTEXT.predicted_bytes - NEEDED
    assert trace.ranks[0].header["prediction"]["engine"] == DRIVERLESS
    assert "predicted-measured" in {one.slug for one in verdict.interval.doubts}
    assert "predicted-rules" not in {one.slug for one in verdict.interval.doubts}


def test_how_often_torch_made_room_is_torchs_own_count() -> None:
    _, verdict = driverless_trace(left_by_torch(num_alloc_retries=3), A100, ENGINE, not_again)
    assert verdict.num_retries == 3
    assert "3 times the allocator gave cached memory back" in verdict_sentence(verdict)


def test_convolutions_widen_the_range_upwards_only() -> None:
    plain = left_by_torch()
    (rank,) = plain.ranks
    convolving = replace(plain, ranks=(replace(rank, strings=(*rank.strings, "ConvolutionBackward0")),))
    # Compiled ones leave no node of autograd's.
    noted = replace(plain, ranks=(replace(rank, header={**rank.header, "convolutions": [{}]}),))
    assert (
        driverless_trace(noted, A100, ENGINE, not_again)[1] == driverless_trace(convolving, A100, ENGINE, not_again)[1]
    )
    narrow, wide = (driverless_trace(one, A100, ENGINE, not_again)[1].interval for one in (plain, convolving))
    for name in ("allocated", "reserved"):
        assert getattr(wide, name).low_bytes == getattr(narrow, name).low_bytes
        assert getattr(wide, name).high_bytes > getattr(narrow, name).high_bytes


def test_trials_of_algorithms_take_the_unfolded_input_of_the_largest() -> None:
    unfolded = NEEDED
    facts = {"largest_unfolded_bytes": unfolded}
    for is_tried in (False, True):
        trace = left_by_torch(cudnn_benchmark=is_tried, **facts)
        (rank,) = trace.ranks
        trace = replace(trace, ranks=(replace(rank, strings=(*rank.strings, "ConvolutionBackward0")),))
        interval = driverless_trace(trace, A100, ENGINE, not_again)[1].interval
        expected = unfolded if is_tried else NEEDED * CONVOLUTIONS_PERMILLE[1] // 1000
        assert interval.reserved.high_bytes == NEEDED + expected
        said = next(one for one in interval.doubts if one.slug == "predicted-convolutions")
        assert said.more_bytes == expected
        assert format_bytes(unfolded) in said.message


def test_a_bound_may_be_too_much_by_all_that_does_not_last() -> None:
    _, verdict = driverless_trace(left_by_torch(notes=("predicted-bound",)), A100, ENGINE, not_again)
    assert verdict.interval.allocated.low_bytes == PARAMETER


def test_what_ran_out_of_memory_needs_what_a_second_run_says() -> None:
    died = left_by_torch(fails=True, status=1)
    _, verdict = driverless_trace(died, TOO_SMALL, ENGINE, left_by_torch)
    assert not verdict.fits
    assert verdict.failed is not None
    assert (verdict.failed.size_bytes, verdict.failed_step) == (RULE, 1)
    assert verdict.peak_allocated_bytes == NEEDED
    assert verdict.headroom_bytes == -2 * MIB


@pytest.mark.parametrize("status", [0, -6, 134])
def test_a_program_that_caught_the_error_and_went_on_fits(status: int) -> None:
    _, verdict = driverless_trace(left_by_torch(fails=True, status=status), TOO_SMALL, ENGINE, not_again)
    assert verdict.fits
    assert verdict.max_reserved_bytes == NEEDED - RULE
