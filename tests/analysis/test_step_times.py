"""Steps by the clock: phases without what memtrace took, tokens and samples by shapes, and utilisation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.results.step_times import StepTimes
from memtrace.analysis.time import throughput
from memtrace.analysis.time.step_times import step_times
from memtrace.forecast.gpus import GPUS
from memtrace.schema.gpu_data_sheets import peak_flops
from memtrace.store.trace import RankTrace
from tests.analysis.small_trace import owner, phase, rank_trace, saved, step

HIDDEN, VOCABULARY, HEADS, SEQUENCE, ROWS = 16, 50, 2, 8, 4


def times_of(rank: RankTrace) -> StepTimes:
    found = step_times(rank)
    assert found is not None
    return found


def test_phases_and_the_rest_add_up_to_the_step_without_what_memtrace_took() -> None:
    phases = [phase("forward", 1, 10, 40), phase("backward", 1, 40, 80), phase("recompute", 1, 50, 60)]
    work = [{"start_ns": 0, "end_ns": 5}, {"start_ns": 2, "end_ns": 8}, {"start_ns": 70, "end_ns": 73}]
    rank = rank_trace(steps=[step(1, 0, 100, recording_ns=11)], phases=phases, own_work=work)
    (found,) = times_of(rank).steps
    assert found.step_ns == 89
    assert found.phases_ns == {"forward": 30, "backward": 27, "recompute": 10, "other": 22}


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=8), st.integers(0, 30))
def test_parts_of_a_step_always_add_up(parts: list, recording: int) -> None:  # type: ignore[type-arg]
    at, phases = recording, []
    for number, (length, gap) in enumerate(parts):
        phases.append(phase(("forward", "backward", "data")[number % 3], 1, at, at + length))
        at += length + gap
    work = [{"start_ns": 0, "end_ns": recording}]
    (found,) = times_of(rank_trace(steps=[step(1, 0, at, recording_ns=recording)], phases=phases, own_work=work)).steps
    assert found.phases_ns is not None
    assert sum(found.phases_ns.values()) == found.step_ns


def test_an_unfinished_step_has_no_time_and_a_profile_no_steps_of_its_own() -> None:
    assert [one.step for one in times_of(rank_trace(steps=[step(1, 0, 9), step(2, 9, None)])).steps] == [1]
    assert step_times(rank_trace(steps=[step(1, 0, 9)], source="kineto")) is None


def batch(time: int, number: int, *inputs: tuple[str, str, str | None]) -> list[dict[str, Any]]:
    """Return the rows of one forward's inputs: name, dtype, shape."""
    return [
        owner(time, 100 * time + at, 8, "input") | {"name": name, "dtype": dtype, "shape": shape, "step": number}
        for at, (name, dtype, shape) in enumerate(inputs)
    ]


def fed(*forwards: list[dict[str, Any]], microbatches: int | None = None) -> tuple[int | None, int | None]:
    """Return tokens and samples of a step with these forwards."""
    count = len(forwards) if microbatches is None else microbatches
    phases = [phase("backward", 1, 10 * at, 10 * at + 5) | {"microbatch": at} for at in range(count)]
    rows = [row for rows in forwards for row in rows]
    steps = [step(1, 0, 100, num_microbatches=count)]
    (found,) = times_of(rank_trace(steps=steps, phases=phases, owners=rows)).steps
    return found.tokens, found.samples


def test_tokens_are_the_elements_of_the_integer_input_over_all_microbatches() -> None:
    ids = ("input", "int64", "4x8")
    assert fed(batch(1, 1, ids, ("mask", "bool", "4x8")), batch(2, 1, ids)) == (64, 8)


def test_token_ids_by_name_count_before_other_inputs() -> None:
    assert fed(batch(1, 1, ("labels", "int64", "4x1"), ("input_ids", "int64", "4x8"))) == (32, 4)


def test_images_are_samples() -> None:
    assert fed(batch(1, 1, ("input", "float32", "16x3x32x32"), ("labels", "int64", "16"))) == (None, 16)


def test_several_forwards_of_a_micro_batch_take_in_as_many_samples_as_one_of_them() -> None:
    ids, images = ("input", "int64", "4x8"), ("input", "float32", "4x3x8x8")
    assert fed(batch(1, 1, ids), batch(2, 1, images), microbatches=1) == (None, 4)
    assert fed(batch(1, 1, ids), batch(2, 1, images), batch(3, 1, ids), batch(4, 1, images), microbatches=2) == (
        None,
        8,
    )
    assert fed(batch(1, 1, ids), batch(2, 1, ("input", "int64", "5x8")), microbatches=1) == (None, None)


def test_what_evaluation_and_a_loss_take_in_is_no_batch() -> None:
    ids = ("input", "int64", "4x8")
    phases = [phase("backward", 1, 10, 20), phase("evaluation", 1, 1, 5)]
    owners = [*batch(2, 1, ("input", "int64", "9x8")), *batch(6, 1, ids)]
    owners += batch(7, 1, ("input of NLLLoss", "int64", "32"))
    (found,) = times_of(rank_trace(steps=[step(1, 0, 100)], phases=phases, owners=owners)).steps
    assert (found.tokens, found.samples) == (32, 4)


def test_nothing_is_said_where_forwards_are_not_microbatches_or_shapes_not_known() -> None:
    ids = ("input", "int64", "4x8")
    assert fed(batch(1, 1, ids), batch(2, 1, ids), batch(3, 1, ids), microbatches=2) == (None, None)
    assert fed(batch(1, 1, ("input", "int64", None))) == (None, None)


def test_steps_that_were_not_recorded_tell_the_speed_where_there_are_three() -> None:
    recorded = [step(1, 0, 500), step(2, 500, 900)]
    later = [step(at, 900 + 100 * at, 1000 + 100 * at, recorded=False) for at in range(3, 6)]
    phases = [phase("backward", number, 500 * number - 100, 500 * number - 50) for number in (1, 2)]
    owners = [row for number in (1, 2) for row in batch(number, number, ("input", "int64", "4x8"))]
    fast = times_of(rank_trace(steps=[*recorded, *later], phases=phases, owners=owners)).throughput
    assert fast is not None
    assert (fast.step_ns, fast.num_steps, fast.of_recorded) == (100, 3, False)
    assert fast.tokens_per_second == 32 * 10**9 / 100
    slow = times_of(rank_trace(steps=[*recorded, *later[:2]], phases=phases, owners=owners)).throughput
    assert slow is not None
    assert (slow.step_ns, slow.num_steps, slow.of_recorded) == (400, 1, True)


def scope(path: str, class_name: str) -> dict[str, Any]:
    row = {"module": path, "class_name": class_name, "start_ns": 1, "end_ns": 2}
    return row | {"step": 2, "recompute": False}


def gpt(
    *, device: str = "NVIDIA A100-SXM4-80GB", without: str = "", more: tuple[tuple[str, str], ...] = ()
) -> RankTrace:
    """Return a recording of a model of one layer whose output layer uses the embedding, in bfloat16 by autocast."""
    shapes = {"tokens": (VOCABULARY, HIDDEN), "positions": (SEQUENCE, HIDDEN), "qkv": (3 * HIDDEN, HIDDEN)}
    owners = []
    for at, (name, (rows, columns)) in enumerate(shapes.items()):
        named = {"name": f"{name}.weight", "shape": f"{rows}x{columns}", "dtype": "float32", "step": 2}
        owners += [owner(5, at, 4, category) | named for category in ("parameter", "gradient") if category != without]
    for number in (1, 2):
        owners += batch(100 * number, number, ("input", "int64", f"{ROWS}x{SEQUENCE}"))
    kept = [f"{ROWS}x{HEADS}x{SEQUENCE}x{HIDDEN // HEADS}", f"{ROWS}x{HEADS}x{SEQUENCE}"]
    attention = "ScaledDotProductFlashAttentionBackward0"
    return rank_trace(
        header={"devices": [{"name": "cuda:0", "kind": device}], "autocast_dtypes": ["bfloat16"]},
        steps=[step(1, 0, 1000), step(2, 1000, 3000)],
        phases=[phase("backward", number, 1000 * number, 1000 * number + 9) for number in (1, 2)],
        owners=owners,
        scopes=[
            *(scope(name, "Embedding") for name in ("tokens", "positions")),
            *(scope(name, "Linear") for name in ("qkv", "head")),
            *(scope(path, name) for path, name in more),
        ],
        saved=[saved(at, at, 8) | {"op": attention, "shape": shape, "step": 2} for at, shape in enumerate(kept)],
    )


def test_utilisation_is_the_arithmetic_of_the_model_over_the_peak_of_the_device() -> None:
    fast = times_of(gpt()).throughput
    assert fast is not None
    flops = fast.flops
    assert flops is not None
    parameters = VOCABULARY * HIDDEN + 3 * HIDDEN * HIDDEN
    scores = 12 * ROWS * SEQUENCE * SEQUENCE * HIDDEN
    assert (flops.matmul_parameters, flops.attention_per_step) == (parameters, scores)
    assert flops.per_step == 6 * parameters * ROWS * SEQUENCE + scores
    assert flops.utilization == pytest.approx(flops.per_step / (312e12 * 2000e-9))
    assert (flops.precision, flops.device) == ("bfloat16", "NVIDIA A100-SXM4-80GB")
    assert any("causal" in one for one in flops.assumptions)


@pytest.mark.parametrize(
    "rank",
    [
        pytest.param(gpt(device="A card nobody knows"), id="unknown device"),
        pytest.param(gpt(without="gradient"), id="frozen parameters"),
        pytest.param(gpt(more=(("layers.0.experts.1", "Mlp"),)), id="experts"),
    ],
)
def test_utilisation_is_not_estimated_where_the_arithmetic_does_not_hold(rank: RankTrace) -> None:
    fast = times_of(rank).throughput
    assert fast is not None
    assert fast.flops is None


def test_peaks_agree_with_those_that_plans_reckon_with() -> None:
    names = {
        "Tesla V100-SXM2-32GB": "v100-32gb",
        "Tesla T4": "t4-16gb",
        "NVIDIA A10G": "a10g-24gb",
        "NVIDIA L4": "l4-24gb",
        "NVIDIA L40S": "l40s-48gb",
        "NVIDIA GeForce RTX 3090": "rtx3090-24gb",
        "NVIDIA GeForce RTX 4090": "rtx4090-24gb",
        "NVIDIA A100 80GB PCIe": "a100-80gb",
        "NVIDIA H100 80GB HBM3": "h100-80gb",
        "NVIDIA H200": "h200-141gb",
        "NVIDIA B200": "b200-192gb",
        "AMD Instinct MI250X": "mi250x-64gb",
        "AMD Instinct MI300X": "mi300x-192gb",
    }
    for device, planned in names.items():
        assert peak_flops(device, "float16") == pytest.approx(GPUS[planned].flops, rel=0.001), device


@pytest.mark.parametrize(
    ("autocast", "dtypes", "precision"),
    [
        (None, ["bfloat16", "bfloat16"], ("bfloat16", False)),
        (None, ["bfloat16", "float32"], (None, False)),
        (["float16"], ["float32"], ("float16", True)),
        (["bfloat16", "float16"], ["float32"], (None, True)),
    ],
)
def test_the_precision_is_that_of_autocast_or_the_one_of_all_parameters(
    autocast: list[str] | None, dtypes: list[str], precision: tuple[str | None, bool]
) -> None:
    owners = [owner(1, at, 8, "parameter") | {"dtype": dtype} for at, dtype in enumerate(dtypes, start=1)]
    # States in another precision say nothing of products of matrices.
    owners += [owner(1, 9, 8, "optimizer_state") | {"dtype": "float64"}]
    rank = rank_trace(header={"autocast_dtypes": autocast}, owners=owners)
    assert throughput._precision(rank) == precision


@pytest.mark.parametrize(
    ("kinds", "device"),
    [
        (["NVIDIA H200", "cpu"], "NVIDIA H200"),
        (["NVIDIA H200"] * 2, "NVIDIA H200"),
        (["A", "B"], None),
        (["cpu"], None),
    ],
)
def test_utilisation_is_of_the_one_kind_of_gpu(kinds: list[str], device: str | None) -> None:
    devices = [
        {"name": "cpu" if kind == "cpu" else f"cuda:{number}", "kind": kind} for number, kind in enumerate(kinds)
    ]
    assert throughput._device(rank_trace(header={"devices": devices})) == device
