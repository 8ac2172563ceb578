"""Each term of the time of a step, worked out on paper for a model of 324 parameters: see tiny_model.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.step_time.computation import flops_per_token
from memtrace.forecast.step_time.step import StepTime, step_time
from tests.forecast.tiny_model import GPU, HALF, HEAD, LAYER, PARAMETERS, RUN, TINY, TOKEN_FLOPS, TOKENS

INSTANT = replace(GPU, flops=1e30, memory_bytes_s=1e60)
"""Computation takes no time, so that nothing hides behind it."""
PATIENT = replace(GPU, flops=GPU.flops / 1000)
"""Computation takes a thousand seconds, so that all that can be hidden is."""


def timed(layout: Layout, run: Run = RUN, gpu: object = GPU, spec: ModelSpec = TINY) -> StepTime:
    return step_time(spec, run, layout, gpu, HALF)  # type: ignore[arg-type]


def seconds(expected: float) -> object:
    return pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_token_costs_six_operations_a_weight_and_twelve_a_score() -> None:
    assert TOKEN_FLOPS == 2472
    assert flops_per_token(TINY, 8) == 2472
    # Twice the tokens are twice the scores: 768 operations more.
    assert flops_per_token(TINY, 16) == 2472 + 768


def test_what_is_looked_up_costs_nothing_and_a_tied_head_what_it_multiplies() -> None:
    assert flops_per_token(replace(TINY, learned_positions=100, token_types=3), 8) == 2472
    # The one matrix is looked up and multiplied with: as many operations as with two.
    assert flops_per_token(replace(TINY, tied=True), 8) == 2472
    # An embedding of width 2 has 20 elements; its head 20 less, and two projections of 8 lead in and out.
    assert flops_per_token(replace(TINY, embedding_dim=2), 8) == 2472 - 6 * 20 + 6 * (8 + 8)


def test_one_gpu_computes_and_does_nothing_else() -> None:
    time = timed(Layout())
    assert (time.total, time.compute) == (seconds(1.0), seconds(1.0))
    assert (time.communication, time.bubble) == (seconds(0.0), seconds(0.0))
    assert time.tokens_per_second_per_gpu == seconds(16.0)
    # It is stated to do twice as many operations a second as its kernels reach.
    assert time.mfu == seconds(0.5)


def test_micro_batches_follow_one_another() -> None:
    time = timed(Layout(), replace(RUN, accumulation=5))
    assert (time.total, time.compute) == (seconds(5.0), seconds(5.0))
    assert time.tokens_per_second_per_gpu == seconds(16.0)


LAST = (6 * (LAYER + HEAD) + 12 * 4 * 8) / TOKEN_FLOPS
"""Seconds of the last of two stages for a micro-batch: a layer, and the head that makes it the slowest."""
FIRST = (6 * LAYER + 12 * 4 * 8) / TOKEN_FLOPS


@pytest.mark.parametrize("axis", ["tp", "cp"])
def test_computation_is_divided_by_tensor_and_context_parallelism(axis: str) -> None:
    assert timed(Layout(**{axis: 2})).compute == seconds(0.5)


@pytest.mark.parametrize("axis", ["dp", "ep"])
def test_computation_is_not_divided_by_data_parallelism(axis: str) -> None:
    assert timed(Layout(**{"dp": 2, axis: 2})).compute == seconds(1.0)


@pytest.mark.parametrize("tied", [False, True])
def test_full_recomputation_repeats_the_forward_pass_of_the_layers(tied: bool) -> None:
    # Two layers of 120 weights and their scores; forward is a third of forward and backward. The head is not repeated.
    again = (6 * 240 + 768) / 3
    time = timed(Layout(), replace(RUN, recompute=2), spec=replace(TINY, tied=tied))
    assert time.compute == seconds(1 + again / 2472)
    # Work done twice is no work of the model.
    assert time.mfu == seconds(0.5 / (1 + again / 2472))


def test_selective_recomputation_repeats_the_scores() -> None:
    # Two products of a score, of two operations each: in 2 layers, of width 4, with 8 tokens.
    again = 2 * 2 * 2 * 4 * 8
    assert timed(Layout(), replace(RUN, recompute=1)).compute == seconds(1 + again / 2472)


@pytest.mark.parametrize(
    ("tp", "expected"),
    [
        # Four all-reduces a layer of 128 bytes; a ring of t ranks sends 2 (t - 1) / t of that each, at 1024 bytes/s.
        (2, 2 * 4 * 128 / 1024),
        (4, 2 * 4 * 192 / 1024),
        # Eight ranks do not fit into a machine of four: half of its four cards of 128 bytes/s.
        (8, 2 * 4 * 224 / (4 * 128 / 2)),
    ],
)
def test_tensor_parallelism_reduces_four_times_a_layer(tp: int, expected: float) -> None:
    assert timed(Layout(tp=tp)).communication == seconds(expected)


def test_tensor_parallelism_is_not_hidden_and_comes_with_each_micro_batch() -> None:
    assert timed(Layout(tp=2), gpu=PATIENT).communication == pytest.approx(1.0, rel=1e-6)
    assert timed(Layout(tp=2), replace(RUN, accumulation=3)).communication == seconds(3.0)


@pytest.mark.parametrize(("recompute", "rounds"), [(0, 4), (1, 4), (2, 6)])
def test_a_repeated_forward_pass_reduces_twice_more(recompute: int, rounds: int) -> None:
    time = timed(Layout(tp=2), replace(RUN, recompute=recompute))
    assert time.communication == seconds(2 * rounds * 128 / 1024)


def test_a_stage_sends_values_forward_and_gradients_back() -> None:
    time = timed(Layout(pp=2), replace(RUN, accumulation=3))
    # 128 bytes each way: a quarter of a second beside the computation of the slower stage.
    assert time.communication == seconds(3 * 0.25)
    assert time.compute == seconds(3 * LAST)
    # While the pipeline fills and drains, a stage waits for one micro-batch of a stage in the mean.
    assert time.bubble == seconds((LAST + 0.25) * (FIRST + LAST) / 2 / LAST)
    assert time.total == seconds(time.communication + time.compute + time.bubble)
    assert time.tokens_per_second_per_gpu == seconds(3 * 16 / time.total / 2)


def test_the_first_stage_is_the_slowest_where_it_has_a_layer_more() -> None:
    # Three layers on two stages: two, and one with the head.
    time = timed(Layout(pp=2), replace(RUN, accumulation=3), spec=replace(TINY, num_layers=3))
    assert time.compute == seconds(3 * 2 * FIRST)


def test_an_interleaved_schedule_waits_less_and_sends_more_often() -> None:
    four = replace(TINY, num_layers=4)
    plain, interleaved = (
        timed(Layout(pp=2, virtual_stages=number), replace(RUN, accumulation=4), spec=four) for number in (1, 2)
    )
    assert interleaved.communication == seconds(2 * plain.communication)
    assert interleaved.compute == plain.compute
    stages = [2 * FIRST, FIRST + LAST]
    for time, number in ((plain, 1), (interleaved, 2)):
        one = max(stages) + number * 0.25
        assert time.bubble == seconds(one * sum(stages) / 2 / max(stages) / number)


def test_each_further_stage_waits_for_one_micro_batch_more() -> None:
    four = replace(TINY, num_layers=4)
    time = timed(Layout(pp=4), spec=four)
    slowest, mean = LAST, (3 * FIRST + LAST) / 4
    assert time.bubble == seconds(3 * (slowest + 0.25) * mean / slowest)


def test_stages_of_several_machines_use_the_links_between_them() -> None:
    # Eight ranks: 256 bytes at 128 bytes/s.
    assert timed(Layout(pp=8), spec=replace(TINY, num_layers=8)).communication == seconds(2.0)


def test_tensor_parallel_ranks_share_what_a_stage_sends_and_have_half_the_layers() -> None:
    # 256 bytes by two ranks; one layer a stage: 4 all-reduces of 128 bytes.
    assert timed(Layout(tp=2, pp=2)).communication == seconds(128 / 1024 + 4 * 128 / 1024)


MIXTURE = replace(TINY, num_experts=8, experts_per_token=2, expert_ffn=8)


@pytest.mark.parametrize(
    ("ep", "expected"),
    [
        # Each token goes to two experts: 256 bytes, of which (e - 1) / e leave the rank, four times a layer.
        (2, 2 * 4 * 128 / 1024),
        (4, 2 * 4 * 192 / 1024),
        (8, 2 * 4 * 224 / 128),
    ],
)
def test_tokens_go_to_their_experts_and_back_twice_a_layer(ep: int, expected: float) -> None:
    found = timed(Layout(dp=ep, ep=ep), gpu=PATIENT, spec=MIXTURE).communication
    assert found == pytest.approx(expected, rel=1e-6)


def test_only_layers_of_experts_send_tokens() -> None:
    one_dense = replace(MIXTURE, num_dense_layers=1)
    found = [timed(Layout(dp=2, ep=2), gpu=PATIENT, spec=spec).communication for spec in (one_dense, MIXTURE, TINY)]
    assert found == [pytest.approx(0.5, rel=1e-6), pytest.approx(1.0, rel=1e-6), pytest.approx(0.0, abs=1e-6)]


def test_tensor_parallel_ranks_share_what_goes_to_experts() -> None:
    found = timed(Layout(dp=2, ep=2, tp=2), gpu=PATIENT, spec=MIXTURE).communication
    # The all-reduces of tensor parallelism, 1 second, stand beside half of a second.
    assert found == pytest.approx(1.0 + 0.5, rel=1e-6)


def test_a_mixture_computes_with_the_experts_of_a_token() -> None:
    # A router of 8 x 4, and of eight experts of 64 weights two, instead of an MLP of 64.
    assert flops_per_token(MIXTURE, 8) == 2472 + 6 * 2 * (32 + 2 * 64 - 64)


REDUCED_BY_TWO = 2 * 0.5 * PARAMETERS * 2 / 1024
"""Seconds in which two ranks all-reduce the 16-bit gradients of the whole model."""


def test_keys_and_values_go_round_the_ring_three_times() -> None:
    # 8 tokens a rank, keys and values of width 2 in 2 bytes: 64 bytes, once forward, twice backward, in 2 layers.
    found = timed(Layout(cp=2), gpu=INSTANT).communication
    assert found == seconds(3 * 64 * 2 / 1024 + REDUCED_BY_TWO)
    # Of four ranks each sends its 32 bytes on three times.
    found = timed(Layout(cp=4, zero=2), gpu=INSTANT).communication
    assert found == seconds(3 * 3 * 32 * 2 / 1024 + 0.75 * PARAMETERS * 2 / 1024)


def test_keys_and_values_hide_behind_attention_alone() -> None:
    # Half a second of computation, of which 768 of 2472 operations are attention; reduction hides behind two thirds.
    found = timed(Layout(cp=2)).communication
    assert found == seconds(0.375 - 0.5 * 768 / 2472 + REDUCED_BY_TWO - 0.5 * 2 / 3)
    assert timed(Layout(cp=2), gpu=PATIENT).communication == pytest.approx(0.0, abs=1e-6)


def test_context_parallel_ranks_share_values_between_layers_and_heads_of_keys() -> None:
    # tp 2: 4 all-reduces a layer of half of 128 bytes; ring of half as wide keys and values; half the parameters.
    found = timed(Layout(cp=2, tp=2), gpu=INSTANT).communication
    assert found == seconds(2 * 4 * 64 / 1024 + 3 * 32 * 2 / 1024 + REDUCED_BY_TWO / 2)


def test_gradients_are_reduced_once_a_step_beside_two_thirds_of_a_backward_pass() -> None:
    found = [timed(Layout(dp=2), replace(RUN, accumulation=n), INSTANT).communication for n in (1, 3)]
    assert found == [seconds(648 / 1024), seconds(648 / 1024)]
    # Of five GPUs, one more than a machine: 2 x 4 / 5 of 648 bytes over four cards, less two thirds of a second.
    assert timed(Layout(dp=5)).communication == seconds(2 * 0.8 * 648 / (4 * 128) - 2 / 3)
    assert timed(Layout(dp=2)).communication == seconds(0.0)


def test_the_first_stage_of_zero_moves_as_much_and_the_second_a_half_each_micro_batch() -> None:
    times = {
        (zero, number): timed(Layout(dp=2, zero=zero), replace(RUN, accumulation=number), INSTANT).communication
        for zero in (0, 1, 2)
        for number in (1, 3)
    }
    assert times[1, 1] == times[1, 3] == times[0, 1] == seconds(648 / 1024)
    assert (times[2, 1], times[2, 3]) == (seconds(324 / 1024), seconds(3 * 324 / 1024))


def test_the_third_stage_gathers_weights_twice_and_scatters_gradients_each_micro_batch() -> None:
    # Half of 648 bytes comes from the other rank: forward, backward, and gradients once.
    found = [timed(Layout(dp=2, zero=3), replace(RUN, accumulation=number), INSTANT).communication for number in (1, 3)]
    assert found == [seconds(3 * 324 / 1024), seconds(3 * 3 * 324 / 1024)]
    # Of five GPUs four fifths come from others, over the network cards of four.
    assert timed(Layout(dp=5, zero=3), gpu=INSTANT).communication == seconds(3 * 0.8 * 648 / (4 * 128))


def test_gathering_hides_behind_all_of_the_computation() -> None:
    assert timed(Layout(dp=2, zero=3)).communication == seconds(0.0)
    assert timed(Layout(dp=2, zero=3), gpu=replace(GPU, flops=2 * GPU.flops)).communication == seconds(
        3 * 324 / 1024 - 0.5
    )


def test_gradients_and_weights_travel_in_their_own_precision() -> None:
    # Under autocast 16-bit weights are gathered and 32-bit gradients scattered.
    run = replace(RUN, precision=PRECISIONS["autocast"])
    assert timed(Layout(dp=2, zero=3), run, INSTANT).communication == seconds((2 * 324 + 648) / 1024)
    assert timed(Layout(dp=2), run, INSTANT).communication == seconds(2 * 648 / 1024)


def test_tensor_and_pipeline_parallelism_divide_what_is_reduced() -> None:
    # Four GPUs of one machine: half of the gradients, and all-reduces of 128 bytes.
    assert timed(Layout(dp=2, tp=2), gpu=INSTANT).communication == seconds(1.0 + 324 / 1024)
    # The bubble is no communication: one micro-batch of 256 bytes.
    time = timed(Layout(dp=2, pp=2), gpu=INSTANT)
    assert (time.communication, time.bubble) == (
        seconds(0.25 + 324 / 1024),
        pytest.approx(0.25 * (FIRST + LAST) / 2 / LAST),
    )


def test_tokens_of_all_data_parallel_ranks_count() -> None:
    time = timed(Layout(dp=2, tp=2), replace(RUN, accumulation=3), INSTANT)
    tokens = 2 * 3 * TOKENS
    assert time.tokens_per_second_per_gpu == seconds(tokens / (3 * 1.0 + 324 / 1024) / 4)


@pytest.mark.parametrize(
    ("layout", "near"), [(Layout(tp=4), True), (Layout(tp=5), False), (Layout(dp=4), True), (Layout(dp=5), False)]
)
def test_a_machine_holds_exactly_its_gpus(layout: Layout, near: bool) -> None:
    # With links that take no time inside a machine, only what leaves it is left.
    fast = replace(INSTANT, intra_bytes_s=1e30)
    assert bool(timed(layout, gpu=fast).communication < 1e-6) is near


LATE = replace(HALF, overlap=0.5)


def test_what_could_be_hidden_is_hidden_in_part() -> None:
    # 972 bytes at 1024 bytes/s, beside a second: half of it is hidden, half is not.
    found = step_time(TINY, RUN, Layout(dp=2, zero=3), GPU, LATE)
    assert found.communication == seconds(0.5 * 3 * 324 / 1024)
    # Beside little computation, what half of that hides.
    fast = step_time(TINY, RUN, Layout(dp=2, zero=3), replace(GPU, flops=10 * GPU.flops), LATE)
    assert fast.communication == seconds(3 * 324 / 1024 - 0.5 * 0.1)


def test_weights_that_stay_after_forward_are_gathered_once() -> None:
    found = [timed(Layout(dp=2, zero=3, reshard=flag), gpu=INSTANT).communication for flag in (1, 0)]
    assert found == [seconds(3 * 324 / 1024), seconds(2 * 324 / 1024)]


@pytest.mark.parametrize(("ranks", "times"), [(2, 1), (4, 1), (8, 2), (16, 3)])
def test_a_collective_takes_its_latency_and_one_more_a_doubling_of_machines(ranks: int, times: int) -> None:
    slow = replace(HALF, latency_s=10.0)
    found = step_time(TINY, RUN, Layout(tp=ranks), GPU, slow).communication - timed(Layout(tp=ranks)).communication
    # Four all-reduces in each of two layers.
    assert found == seconds(8 * times * 10.0)


def test_gradients_are_reduced_a_bucket_at_a_time() -> None:
    speed = replace(HALF, latency_s=10.0, bucket_bytes=81.0)
    found = step_time(TINY, RUN, Layout(dp=2), INSTANT, speed).communication
    assert found == seconds(648 / 1024 + 648 / 81 * 10.0)


def test_computation_is_no_faster_than_the_code_that_launches_it() -> None:
    speed = replace(HALF, launch_s=0.7, crowded_launch_s=0.4)
    alone = step_time(TINY, RUN, Layout(), GPU, speed)
    assert (alone.total, alone.terms["launch"]) == (seconds(1.4), seconds(0.4))
    # Recomputation launches a forward pass more; two stages of two tensor-parallel ranks are in each other's way.
    again = step_time(TINY, replace(RUN, recompute=2), Layout(), INSTANT, speed)
    assert again.total == seconds(1.4 * 4 / 3)
    crowded = step_time(TINY, RUN, Layout(tp=2, pp=2), INSTANT, speed)
    assert crowded.terms["launch"] == seconds(2 * 0.4 - crowded.terms["tensor"])


def test_small_micro_batches_and_narrow_matrices_are_slower() -> None:
    speed = replace(HALF, half_tokens=16, attention_share=1e30)
    products = (TOKEN_FLOPS - 2 * 384) / TOKEN_FLOPS
    assert step_time(TINY, RUN, Layout(), GPU, speed).total == seconds(2 * products)
    # As wide as the matrices are in the harmonic mean, by their operations; the head is not cut along it.
    matrices = [(8, 4), (4, 4), (8, 4), (4, 8)]
    inverse = sum(n * k * (1 / n + 1 / k) / 2 for n, k in matrices) / sum(n * k for n, k in matrices)
    narrow = replace(HALF, half_width=1 / inverse, attention_share=1e30)
    in_layers = 6 * 2 * LAYER / TOKEN_FLOPS
    assert step_time(TINY, RUN, Layout(), GPU, narrow).total == seconds(products + in_layers)


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_megatron_hides_a_part_of_tensor_parallelism_on_later_gpus(capability: tuple[int, int]) -> None:
    speed, gpu = replace(HALF, overlap=0.25, send_s=0.1), replace(GPU, capability=capability)
    left = 0.75 if capability == (9, 0) else 1
    for virtual, of_messages in ((1, 1), (2, left)):
        layout = Layout(tp=2, pp=2, virtual_stages=virtual)
        plain, hidden = (
            step_time(TINY, replace(RUN, framework=name), layout, gpu, speed) for name in ("none", "megatron")
        )
        assert hidden.terms["tensor"] == pytest.approx(left * plain.terms["tensor"])
        assert hidden.terms["pipeline"] == pytest.approx(of_messages * plain.terms["pipeline"])


def test_values_that_are_only_moved_take_the_time_of_the_memory() -> None:
    slow = replace(INSTANT, memory_bytes_s=1000.0)
    speed = replace(HALF, layer_bytes=10, memory_share=0.5)
    found = step_time(TINY, RUN, Layout(), slow, speed)
    layers, loss = 2 * 10 * 4 * TOKENS, 30 * 10 * TOKENS
    assert found.terms["compute"] == seconds((layers + loss) / 500)
    assert found.terms["optimizer"] == seconds(30 * PARAMETERS / 500)
    fused = step_time(TINY, replace(RUN, loss="fused"), Layout(dp=2, zero=1), slow, speed)
    assert fused.terms["compute"] == seconds((layers + loss / 3) / 500)
    assert fused.terms["optimizer"] == seconds(30 * PARAMETERS / 2 / 500)


def test_eight_bit_products_are_faster_where_the_gpu_has_them() -> None:
    run = replace(RUN, precision=PRECISIONS["fp8-mixed"])
    speed = replace(HALF, attention_share=1e30, share_8bit=0.75)
    eight = step_time(TINY, run, Layout(), replace(GPU, flops_8bit=2 * GPU.flops), speed).total
    layers, head = 6 * 2 * LAYER / TOKEN_FLOPS, 6 * HEAD / TOKEN_FLOPS
    assert eight == seconds(layers / 1.5 + head)
    assert step_time(TINY, run, Layout(), GPU, speed).total == seconds(layers + head)


def test_casts_to_eight_bits_take_the_time_of_the_memory() -> None:
    slow = replace(INSTANT, memory_bytes_s=1000.0, flops_8bit=2e30)
    speed = replace(HALF, layer_bytes=10, memory_share=0.5)
    sixteen, eight = (
        step_time(TINY, replace(RUN, precision=PRECISIONS[name]), Layout(), slow, speed).terms["compute"]
        for name in ("bf16-mixed", "fp8-mixed")
    )
    # Products take the input of attention, its output, that of the MLP and the MLP's inner values, 4 + 4 + 4 + 8; their
    # backward passes the gradients of what they gave, queries, keys and values, two outputs and inner: 8 + 4 + 4 + 8.
    assert eight - sixteen == seconds(4 * 2 * (20 + 24) * TOKENS / 500)


def test_heads_that_are_no_multiple_of_eight_wide_and_scores_that_are_written_out_are_slow() -> None:
    speed = replace(HALF, unaligned_share=0.25)
    # Heads of two: attention, 768 of 2472 operations, takes four times as long.
    assert step_time(TINY, RUN, Layout(), GPU, speed).total == seconds(1 + 3 * 768 / TOKEN_FLOPS)
    explicit = step_time(TINY, replace(RUN, attention="explicit"), Layout(), replace(INSTANT, memory_bytes_s=1e3), HALF)
    written = 2 * 13 * RUN.micro_batch * 2 * 8 * 8
    assert explicit.terms["compute"] == seconds((written + 30 * 10 * TOKENS) / 1e3)


def test_later_gpus_reach_less_of_their_data_sheet() -> None:
    later = step_time(TINY, RUN, Layout(), replace(GPU, capability=(9, 0)), replace(HALF, later_share=0.8))
    assert later.total == seconds(1 / 0.8)


def test_zero_bubble_schedules_compute_weight_gradients_while_others_would_wait() -> None:
    four = replace(TINY, num_layers=4)
    run = replace(RUN, accumulation=4)
    plain, half, none = (timed(Layout(pp=2, schedule=name), run, spec=four) for name in ("1f1b", "zb-h1", "zbv"))
    assert [time.compute for time in (half, none)] == [plain.compute] * 2
    stages = [2 * FIRST, FIRST + LAST]
    mean = sum(stages) / 2 / max(stages)
    assert plain.bubble == seconds((max(stages) + 0.25) * mean)
    # Of three equal parts of the computation one waits: forward and input gradient, less a weight gradient.
    assert half.bubble == seconds((max(stages) / 3 + 0.25) * mean)
    assert none.bubble == seconds(0.25 * mean)
