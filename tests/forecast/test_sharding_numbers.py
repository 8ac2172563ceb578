"""What a rank holds of a model of 324 parameters, added up on paper: see tiny_model.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.memory.optimizers import OPTIMIZERS
from memtrace.forecast.memory.sharding import RankModel, context_bytes, held_by_stage, in_flight, rank_model
from memtrace.forecast.memory.stages import layers_of_stage
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.presets import preset
from memtrace.forecast.model.spec import ModelSpec
from tests.forecast.tiny_model import EMBEDDING, HEAD, LAYER, PARAMETERS, RUN, TINY

MIB = 2**20


def held(layout: Layout, *, is_last: bool = False, spec: ModelSpec = TINY, **settings: object) -> RankModel:
    return rank_model(spec, replace(RUN, **settings), layout, is_last=is_last)  # type: ignore[arg-type]


def test_a_layout_that_says_nothing_is_one_rank_and_each_axis_multiplies_the_ranks() -> None:
    assert (Layout().world_size, Layout().shards) == (1, 1)
    assert Layout(dp=2, tp=3, pp=5, cp=7, ep=2).world_size == 2 * 3 * 5 * 7
    assert Layout(dp=2, tp=3, pp=5, cp=7, ep=2).shards == 2 * 7


def test_one_rank_holds_two_two_and_twelve_bytes_a_parameter() -> None:
    model = held(Layout())
    assert (model.weights, model.gradients, model.states) == (2 * 324, 2 * 324, (4 + 4 + 4) * 324)
    assert (model.gathered, model.reduced, model.buckets, model.accumulated_gradients) == (0, 0, 0, 0)
    assert model.elements.total == PARAMETERS == 324


def test_each_recipe_keeps_its_own_copies() -> None:
    model = held(Layout(), precision=PRECISIONS["bf16-mixed-fp32-grad"])
    assert (model.gradients, model.accumulated_gradients) == (2 * 324, 4 * 324)
    model = held(Layout(), precision=PRECISIONS["fp8-mixed"])
    # Weights of 16 bits, and FP8 copies of them and of their transposes.
    assert model.weights == (2 + 1 + 1) * 324


@pytest.mark.parametrize(
    ("zero", "weights", "gradients", "states"),
    # Flat: 324 / 4 = 81 a rank.
    [(0, 324, 324, 324), (1, 324, 324, 81), (2, 324, 81, 81)],
)
def test_zero_divides_states_then_gradients(zero: int, weights: int, gradients: int, states: int) -> None:
    model = held(Layout(dp=4, zero=zero))
    assert (model.weights, model.gradients, model.states) == (2 * weights, 2 * gradients, 12 * states)


def test_zero_3_cuts_each_tensor_by_rows() -> None:
    # Of four ranks the first has: embedding 3 of 10 rows = 12; a layer's norms 1 + 1, query 4, key and value one of 2
    # rows = 4 + 4, out 4, up 2 rows = 8, down 1 row = 8: 34; final norm 1, head 12.
    rows = 12 + 2 * 34 + 13
    model = held(Layout(dp=4, zero=3))
    assert (model.weights, model.gradients, model.states) == (2 * rows, 2 * rows, 12 * rows)
    # Of two ranks each has half of everything.
    assert held(Layout(dp=2, zero=3)).weights == 2 * 162


def test_context_parallel_ranks_share_states_as_data_parallel_ones_do() -> None:
    assert held(Layout(cp=4, zero=1)).states == 12 * 81
    assert held(Layout(dp=2, cp=2, zero=1)).states == 12 * 81


def test_zero_3_gathers_two_layers_with_embedding_and_head() -> None:
    model = held(Layout(dp=2, zero=3))
    # Beside two layers embedding and head, FSDP2's root group, which keeps its whole gradients until backward ends.
    assert model.gathered == 2 * (2 * LAYER + EMBEDDING + HEAD)
    assert model.reduced == 2 * (LAYER + EMBEDDING + HEAD)
    for layout in (Layout(zero=3), Layout(dp=2, zero=2)):
        assert (held(layout).gathered, held(layout).reduced) == (0, 0)


def test_without_resharding_all_weights_of_a_stage_stay_and_in_a_pipeline_whole_gradients_too() -> None:
    model = held(Layout(dp=2, zero=3, reshard=0))
    assert (model.gathered, model.reduced) == (2 * PARAMETERS, 2 * (LAYER + EMBEDDING + HEAD))
    first = held(Layout(dp=2, pp=2, zero=3, reshard=0), accumulation=2)
    # Micro-batches are added up in float32.
    assert (first.gathered, first.reduced) == (2 * (EMBEDDING + LAYER), 4 * (EMBEDDING + LAYER))


def test_frameworks_hold_buckets_of_their_own_size() -> None:
    assert held(Layout(dp=2, zero=1)).buckets == 2 * 25 * MIB
    # Half a billion elements of two bytes, to reduce and to gather.
    assert held(Layout(dp=2, zero=1), framework="deepspeed").buckets == 2 * 10**9


@pytest.mark.parametrize(("head", "first", "last"), [(0.0, 3, 2), (0.5, 3, 2), (1.2, 4, 1), (3.0, 5, 0)])
def test_stages_that_are_balanced_by_cost_end_with_the_layer_that_passes_their_part(
    head: float, first: int, last: int
) -> None:
    # Of five layers and a head: half of 5.5 is passed by the third layer, half of 6.2 by the fourth, of 8 by the fifth.
    five = replace(TINY, num_layers=5)
    layout = Layout(pp=2, head_layers=head)
    assert [layers_of_stage(five, layout, is_last=is_last) for is_last in (False, True)] == [first, last]
    assert held(layout, spec=five).elements.total == EMBEDDING + first * LAYER
    assert held(layout, spec=five, is_last=True).elements.total == HEAD + last * LAYER


def test_an_interleaved_schedule_holds_more_than_as_many_micro_batches_as_stages() -> None:
    # Two stages of two parts each: the first has 2 + 2 + 1 parts in flight, which are two and a half micro-batches.
    run, layout = replace(RUN, accumulation=8), Layout(pp=2, virtual_stages=2)
    assert [held_by_stage(100, run, layout, is_last=is_last) for is_last in (False, True)] == [250, 150]
    assert held_by_stage(100, replace(run, accumulation=1), layout, is_last=False) == 100
    assert held_by_stage(100, run, Layout(pp=2), is_last=False) == 200


def test_gathered_weights_are_as_wide_as_products_and_scattered_gradients_as_gradients() -> None:
    model = held(Layout(dp=2, zero=3), precision=PRECISIONS["autocast"])
    assert (model.gathered, model.reduced) == (2 * (2 * LAYER + 84), 4 * (LAYER + 84))


def test_gradients_of_a_layer_and_of_the_embedding() -> None:
    model = held(Layout())
    assert (model.layer_gradients, model.embedding_gradients) == (2 * LAYER, 2 * EMBEDDING)
    # Divided flat among four.
    model = held(Layout(dp=4, zero=2))
    assert model.embedding_gradients == 2 * EMBEDDING // 4
    assert model.layer_gradients == 2 * (81 - 84 // 4) // 2


def test_tensor_parallelism_divides_matrices_and_leaves_norms_whole() -> None:
    # Norms 2 x 8 in the layers and 4 before the head stay; 304 others are halved.
    assert held(Layout(tp=2)).elements.total == 20 + 304 // 2


def test_stages_have_their_layers_and_the_end_that_is_theirs() -> None:
    layout = Layout(pp=2)
    first, last = (held(layout, is_last=is_last).elements.total for is_last in (False, True))
    assert (first, last) == (EMBEDDING + LAYER, LAYER + HEAD)
    # A tied head of its own stage has a copy of the embedding and its norm; alone there is one matrix.
    tied = replace(TINY, tied=True)
    assert held(layout, is_last=True, spec=tied).elements.total == LAYER + 4 + EMBEDDING
    assert held(Layout(), spec=tied).elements.total == PARAMETERS - 40


def test_the_fullest_stage_has_the_layers_that_are_left_over() -> None:
    five = replace(TINY, num_layers=5)
    assert [layers_of_stage(five, Layout(pp=pp)) for pp in (1, 2, 4, 5)] == [5, 3, 2, 1]


def test_experts_are_divided_by_expert_parallelism_and_sharded_among_those_who_hold_the_same() -> None:
    mixture = replace(TINY, num_experts=4, experts_per_token=2, expert_ffn=8)
    # A layer: four experts of 8 x 4 + 4 x 8 = 256, a router of 4 x 4 = 16, and 120 less the MLP's 64.
    dense = EMBEDDING + HEAD + 2 * (120 - 64 + 16)
    model = held(Layout(dp=4, ep=2), spec=mixture)
    assert (model.elements.dense, model.elements.experts) == (dense, 2 * 256 // 2)
    # ZeRO-1: the rest among four ranks, experts among the two with the same half.
    assert held(Layout(dp=4, ep=2, zero=1), spec=mixture).states == 12 * (dense // 4 + 256 // 2)


def test_parameters_beyond_the_listed_shapes_are_spread() -> None:
    more = replace(TINY, extra_parameters=8)
    assert held(Layout(), spec=more).weights == 2 * 332
    assert held(Layout(pp=2, tp=2), spec=more).elements.total == held(Layout(pp=2, tp=2)).elements.total + 2
    assert held(Layout(), spec=more).states == 12 * 332


def test_data_parallelism_without_zero_copies_gradients_and_zero_1_and_2_use_two_buckets() -> None:
    assert held(Layout(dp=2, bucket_view=False)).buckets == 2 * 324
    found = [held(Layout(dp=2, zero=zero)).buckets for zero in (0, 1, 2, 3)]
    assert found == [0, 2 * 25 * MIB, 2 * 25 * MIB, 0]
    assert held(Layout(zero=1)).buckets == 0


def test_adamw_on_the_cpu_counts_steps_of_each_tensor_on_every_rank() -> None:
    # Embedding, 8 tensors a layer, norm and head: 19 of 4 bytes.
    assert held(Layout(dp=4, zero=1), backend="cpu").states == 12 * 81 + 4 * 19
    sgd = held(Layout(), backend="cpu", optimizer=OPTIMIZERS["sgd-momentum"])
    assert sgd.states == (4 + 4) * 324


def test_a_gpu_holds_its_context_a_workspace_and_communicators_of_the_axes_in_use() -> None:
    alone = RUN.context.predicted_bytes + 32 * MIB
    assert context_bytes(RUN, Layout()) == alone
    assert context_bytes(RUN, Layout(dp=2)) == alone + 256 * MIB
    assert context_bytes(RUN, Layout(dp=2, tp=2, pp=2, cp=2, ep=2)) == alone + 5 * 256 * MIB
    assert context_bytes(replace(RUN, backend="cpu"), Layout(dp=2)) == 0


def test_a_stage_keeps_micro_batches_until_the_last_one_has_answered() -> None:
    run = replace(RUN, accumulation=8)
    assert (in_flight(run, Layout(pp=4), is_last=False), in_flight(run, Layout(pp=4), is_last=True)) == (4, 1)
    assert in_flight(replace(RUN, accumulation=3), Layout(pp=4), is_last=False) == 3


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_tensor_without_elements_is_divided_like_any_other(zero: int) -> None:
    without = replace(preset("gpt2"), ffn=0)
    layers, hidden = without.num_layers, without.hidden

    held = rank_model(without, Run(), Layout(dp=1, zero=zero), is_last=False)

    # GPT-2's feed-forward: two matrices of hidden x ffn, and a bias of ffn and one of hidden.
    full = rank_model(preset("gpt2"), Run(), Layout(dp=1), is_last=False)
    assert full.elements.total - held.elements.total == layers * (2 * hidden + 1) * preset("gpt2").ffn
