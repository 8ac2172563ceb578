"""What nanotron holds beside the formulas: gradients between steps, and what collectives have not given back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from memtrace.forecast.gpus import gpu_named
from memtrace.forecast.memory.held_by_framework import MAX_GPUS_AHEAD, PASSES_AHEAD, in_flight_bytes
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.memory.phases import moments
from memtrace.forecast.model.precision import precision_in
from memtrace.forecast.model.presets import preset
from memtrace.forecast.planning.costs import costs
from memtrace.forecast.step_time.speed import Speed

MODEL = preset("llama-3-8b")
RUN = Run(sequence=4096, accumulation=8, framework="nanotron", precision=precision_in("bf16-mixed", "nanotron"))
AHEAD = PASSES_AHEAD["nanotron"]
A_PASS = 2 * 4096 * MODEL.hidden * 2
"""Two tensors of the whole width, in 16 bits."""


@pytest.mark.parametrize(
    ("layout", "more", "passes"),
    [
        (Layout(tp=8), {}, AHEAD),
        (Layout(dp=8), {}, 0),
        (Layout(tp=8), {"framework": "megatron"}, 0),
        (Layout(tp=8), {"micro_batch": 3}, 3 * AHEAD),
        # One micro-batch runs forward through the 32 layers, more than the program is ahead.
        (Layout(tp=8), {"accumulation": 1}, AHEAD),
        (Layout(tp=8, pp=2), {}, 0),
        (Layout(tp=8, pp=4), {}, AHEAD // 2),
        (Layout(tp=8, pp=4), {"accumulation": 1}, 0),
        (Layout(tp=8, pp=4, dp=MAX_GPUS_AHEAD // 32), {}, AHEAD // 2),
        (Layout(tp=8, pp=4, dp=MAX_GPUS_AHEAD // 16), {}, 0),
    ],
)
def test_collectives_in_flight_are_counted_in_passes_through_a_layer(layout, more, passes) -> None:  # type: ignore[no-untyped-def]
    assert in_flight_bytes(MODEL, replace(RUN, **more), layout) == passes * A_PASS


def test_a_stage_of_deepspeed_keeps_what_it_sent_on_for_each_micro_batch_in_flight() -> None:
    layout = Layout(pp=4, sequence_parallel=False)
    run = replace(RUN, precision=precision_in("bf16-mixed", "none"))
    for is_last, in_flight in ((False, 4), (True, 0)):
        kept, given_back = (
            max(
                int(one.by_category["activation"])
                for one in moments(MODEL, replace(run, framework=name), layout, is_last=is_last, steady=True)
            )
            for name in ("deepspeed", "none")
        )
        assert kept - given_back == in_flight * 4096 * MODEL.hidden * 2


def test_one_micro_batch_is_ahead_by_no_more_passes_than_layers() -> None:
    small = replace(MODEL, num_layers=16)
    assert in_flight_bytes(small, replace(RUN, accumulation=1), Layout(tp=8)) == 16 * A_PASS


def test_arrays_of_layouts_hold_what_each_alone_does() -> None:
    axes = {"tp": np.array([1, 8, 8, 8]), "pp": np.array([1, 1, 4, 2])}
    run = replace(RUN, accumulation=np.array([8, 1, 8, 8]))
    alone = [
        in_flight_bytes(MODEL, replace(RUN, accumulation=int(number)), Layout(tp=int(tp), pp=int(pp)))
        for tp, pp, number in zip(axes["tp"], axes["pp"], run.accumulation, strict=True)
    ]
    assert in_flight_bytes(MODEL, run, Layout(**axes)).tolist() == alone


def test_gradients_stand_in_a_step_of_one_micro_batch_too() -> None:
    def standing(run: Run) -> int:
        forward = moments(MODEL, run, Layout(dp=8), is_last=False, steady=True)[0]
        return int(forward.by_category["gradient"])

    assert standing(replace(RUN, accumulation=1)) == standing(RUN)
    elsewhere = replace(RUN, framework="none")
    assert standing(replace(elsewhere, accumulation=1)) < standing(elsewhere)


def test_what_collectives_hold_is_given_back_before_a_gpu_is_full() -> None:
    def needed(memory_bytes: int) -> int:
        gpu = replace(gpu_named("h100-80gb"), memory_bytes=memory_bytes)
        layout = Layout(tp=np.array([8]))
        return int(costs(MODEL, replace(RUN, micro_batch=4), layout, gpu, Speed()).needed[0])

    enough = needed(2**50)
    held = 4 * AHEAD * A_PASS
    assert needed(enough - held // 2) == enough - held // 2
    # What the formulas say must be there, however small the GPU is.
    assert enough - held <= needed(2**30) < enough - held // 2
