"""The sequence of requests behind what is reserved, for a model whose tensors are each less than a block."""

from __future__ import annotations

from memtrace.forecast.memory.layout import Layout
from memtrace.forecast.memory.reserve import NUM_STEPS, Reserve, _Program, simulated_reserve
from memtrace.forecast.model.parameter_tensors import Division, ParameterTensor, Place
from tests.forecast.tiny_model import RUN, TINY

BLOCK = 512


def tensor(division: Division) -> ParameterTensor:
    return ParameterTensor(name="w", shape=(8, 10), division=division, place=Place.DENSE_LAYER)


def test_weights_are_a_block_each() -> None:
    program = _Program(TINY, RUN, Layout())
    program.start()
    # Embedding, eight tensors in each of two layers, final norm and head.
    assert program.allocator.allocated_bytes == program.peak == (1 + 2 * 8 + 2) * BLOCK


def test_parts_of_a_tensor_on_one_rank() -> None:
    layout = Layout(dp=4, tp=2, ep=2, zero=2)
    program = _Program(TINY, RUN, layout)
    sizes = {one: [program.size(tensor(one), stage) for stage in (2, 3)] for one in Division}
    # 80 elements: by 2 tensor-parallel ranks, from its stage on by 4 ranks more; experts by 2 and then by 2 more.
    assert sizes == {Division.SPLIT: [10, 40], Division.WHOLE: [20, 80], Division.EXPERTS: [10, 20]}


def test_zero_3_gathers_a_layer_beside_the_one_before() -> None:
    program = _Program(TINY, RUN, Layout(dp=2, zero=3))
    held = []
    for layer in (0, 1, 1):
        program.prefetch(layer)
        held.append(program.allocator.allocated_bytes)
    # A layer is 120 elements of 2 bytes: one block; of three that were gathered the first was given back.
    assert held == [BLOCK, 2 * BLOCK, 2 * BLOCK]
    alone = _Program(TINY, RUN, Layout(zero=3))
    assert alone.gather(Place.DENSE_LAYER) == []


def test_a_step_leaves_weights_and_states() -> None:
    program = _Program(TINY, RUN, Layout())
    program.start()
    program.step()
    weights, after_one = 19, program.allocator.allocated_bytes
    # AdamW: two moments and a master copy of each of 19 tensors.
    assert after_one == (weights + 3 * 19) * BLOCK
    program.step()
    assert program.allocator.allocated_bytes == after_one


def test_what_is_reserved_beyond_what_was_in_use_is_overhead() -> None:
    assert Reserve(peak_allocated_bytes=70, peak_reserved_bytes=100).overhead_bytes == 30
    # All blocks are small ones: they fit into one segment of 2 MiB.
    assert simulated_reserve(TINY, RUN, Layout()).peak_reserved_bytes == 2 * 2**20
    assert NUM_STEPS >= 2
