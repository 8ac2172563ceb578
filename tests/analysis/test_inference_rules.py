"""The single rules of inference: repeated sizes, stacks, and which resident block is a parameter."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtrace.analysis.attribution.inferred_residents import Residents, choose_residents
from memtrace.analysis.attribution.repeated_sizes import copied_from_repeats, gram_codes
from memtrace.analysis.attribution.size_matching import sets_of_sizes
from memtrace.analysis.attribution.stack_roles import (
    BUCKET,
    COLLECTIVE,
    COMMUNICATION,
    ENGINE,
    MODULE,
    OPTIMIZER_SETUP,
    RECOMPUTE,
    REDUCTION,
    STEP,
    frame_role,
)
from memtrace.analysis.events.lifetimes import Lifetimes
from memtrace.schema.names import Category

STEP_SIZES = np.array([100 + at * at for at in range(60)])
KINDS = np.where(np.arange(60) < 30, 1, 2)


def _copied(sizes: np.ndarray, kinds: np.ndarray) -> list[int]:
    found = copied_from_repeats(sizes, kinds, can_change=np.ones(len(sizes), np.bool_))
    assert found.tolist() == np.where(kinds != 0, kinds, found).tolist()
    return found.tolist()


def test_steps_without_frames_take_the_kinds_of_a_step_with_the_same_sizes() -> None:
    sizes = np.tile(STEP_SIZES, 6)
    kinds = np.concatenate([KINDS, np.zeros(300, np.int64)])
    found = _copied(sizes, kinds)
    # The first sizes of a repetition have no full run of sizes before them in the known one.
    assert found[67:] == np.tile(KINDS, 6)[67:].tolist()


def test_other_sizes_are_no_repetition() -> None:
    sizes = np.concatenate([STEP_SIZES, STEP_SIZES[::-1] + 1000])
    kinds = np.concatenate([KINDS, np.zeros(60, np.int64)])
    assert _copied(sizes, kinds) == kinds.tolist()


def test_what_comes_before_all_that_is_known_is_no_repetition() -> None:
    sizes = np.tile(STEP_SIZES, 2)
    kinds = np.concatenate([np.zeros(60, np.int64), KINDS])
    assert _copied(sizes, kinds) == kinds.tolist()


@given(st.lists(st.integers(1, 4), max_size=80), st.lists(st.integers(0, 3), max_size=80))
def test_what_is_known_is_never_changed(sizes: list[int], kinds: list[int]) -> None:
    num = min(len(sizes), len(kinds))
    _copied(np.array(sizes[:num], np.int64), np.array(kinds[:num], np.int64))


def test_codes_are_the_same_for_the_same_sizes_only() -> None:
    codes = gram_codes(np.tile(STEP_SIZES, 2))
    assert codes[67:].tolist() == np.concatenate([codes[67:68], codes[8:60]]).tolist()
    assert len(set(codes[7:60].tolist())) == 53


@pytest.mark.parametrize(
    ("file", "function", "flag"),
    [
        ("torch/nn/modules/module.py", "_call_impl", MODULE),
        ("C:\\torch\\utils\\checkpoint.py", "unpack_hook", RECOMPUTE),
        ("torch/optim/adam.py", "step", STEP),
        ("torch/optim/adam.py", "__init__", OPTIMIZER_SETUP),
        ("", "AddmmBackward0", ENGINE),
        ("", "torch.autograd::Engine", ENGINE),
        ("torch/nn/parallel/distributed.py", "_pre_forward", COMMUNICATION | BUCKET),
        ("torch/distributed/distributed_c10d.py", "all_gather_single", COMMUNICATION | COLLECTIVE),
        ("torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py", "foreach_reduce", COMMUNICATION | REDUCTION),
        ("train.py", "backward_hook", 0),
        ("model.py", "AddmmBackward0", 0),
    ],
)
def test_frames_say_what_was_running(file: str, function: str, flag: int) -> None:
    every = MODULE | RECOMPUTE | STEP | OPTIMIZER_SETUP | ENGINE | COMMUNICATION | BUCKET | COLLECTIVE | REDUCTION
    assert frame_role(file, function) & every == flag


def _residents(sizes: list[int], **more: object) -> Residents:
    num = len(sizes)
    zeros = np.zeros(num, np.int64)
    lifetimes = Lifetimes(
        address=1000 * np.arange(num),
        size_bytes=np.array(sizes, np.int64),
        stack=zeros,
        start=np.arange(num),
        in_use_end=zeros + 100,
        end=zeros + 100,
        is_initial=np.zeros(num, np.bool_),
        num_moments=100,
        num_unpaired=0,
        has_free_requests=False,
    )
    facts: dict[str, object] = {
        "rows": np.arange(num),
        "lifetimes": lifetimes,
        "roles": zeros,
        "freed_in_step": np.zeros(num, np.bool_),
        "states": Counter(),
        "num_states": None,
        "has_backward": True,
        "num_sets": (4, 3, 2),
        "has_collectives": False,
        "is_accelerator": False,
    }
    return Residents(**{**facts, **more})  # type: ignore[arg-type]


def _chosen(blocks: Residents, gradients: dict[int, int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for category, _, rows in choose_residents(blocks, Counter(gradients)):
        if len(rows):
            found.setdefault(category.value, []).extend(rows.tolist())
    return {name: sorted(rows) for name, rows in found.items()}


def test_as_many_blocks_as_gradients_are_parameters() -> None:
    assert _chosen(_residents([512, 64, 900]), {512: 1, 64: 1}) == {"parameter": [0, 1]}


def test_more_blocks_than_gradients_are_not_told_apart_without_evidence() -> None:
    # One size has two blocks for a gradient, the others one: no optimizer makes that.
    assert _chosen(_residents([512, 512, 9000]), {512: 1, 9000: 1}) == {"parameter": [2]}


def test_states_made_at_construction_come_after_the_parameters() -> None:
    blocks = _residents([512, 64, 512, 512, 64, 64])
    assert _chosen(blocks, {512: 1, 64: 1}) == {"parameter": [0, 1], "optimizer_state": [2, 3, 4, 5]}


def test_a_copy_of_the_parameters_is_no_state_where_steps_make_the_states() -> None:
    blocks = _residents([512, 64, 512, 64], states=Counter({512: 2, 64: 2}), num_states=2)
    assert _chosen(blocks, {512: 1, 64: 1}) == {"parameter": [0, 1]}


def test_states_stand_in_for_gradients_that_are_pieces_of_larger_blocks() -> None:
    blocks = _residents([512, 64], states=Counter({512: 2, 64: 2, 4: 2}), num_states=2)
    assert _chosen(blocks, {}) == {"parameter": [0, 1]}


def test_fewer_states_than_an_optimizer_makes_say_nothing() -> None:
    assert _chosen(_residents([512, 512], states=Counter({512: 1}), num_states=2), {}) == {}


def test_running_statistics_of_norms_are_buffers() -> None:
    norm = [32, 32, 32, 32, 8]
    blocks = _residents([4096, *norm, 4096, *norm])
    buffers = [3, 4, 5, 9, 10, 11]
    assert _chosen(blocks, {4096: 2, 32: 4}) == {
        "buffer": buffers,
        "parameter": [row for row in range(12) if row not in buffers],
    }


def test_blocks_that_a_step_frees_were_its_states() -> None:
    freed = np.array([False, True, True])
    blocks = _residents([512, 512, 512], freed_in_step=freed)
    blocks.lifetimes.in_use_end[freed] = 50
    assert _chosen(blocks, {512: 1}) == {"optimizer_state": [1, 2], "parameter": [0]}


def test_parameters_that_a_step_frees_with_their_states_are_not_told_from_them() -> None:
    freed = np.array([True, True, True, False])
    blocks = _residents([512, 512, 512, 64], freed_in_step=freed, num_states=2)
    blocks.lifetimes.in_use_end[freed] = 50
    assert _chosen(blocks, {512: 1, 64: 1}) == {"parameter": [3]}


def test_six_layers_in_two_sets_are_not_four_sets_of_three() -> None:
    sizes = np.array([900] * 12 + [100] * 2)
    assert [len(one) for one in sets_of_sizes(np.arange(14), sizes, (3, 2))] == [7, 7]


def test_distributed_sets_tell_parameters_only() -> None:
    blocks = _residents([512, 64, 512, 64], has_collectives=True, is_accelerator=True)
    lifetimes = blocks.lifetimes
    lifetimes.is_initial[:] = True
    assert _chosen(blocks, {}) == {Category.PARAMETER.value: [0, 1]}
