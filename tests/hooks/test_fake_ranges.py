"""Requests of a fake device that no operator makes: told by their addresses, so that a range can leave them out."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from memtrace.hooks.fake.events.storages import FakeMemory
from memtrace.hooks.fake.kernels.workspaces import Kernels
from memtrace.schema.predicted import FIRST_ALLOWANCE_ADDRESS, FIRST_RULE_ADDRESS


def test_rules_and_allowances_are_told_by_their_addresses() -> None:
    memory = FakeMemory(with_stacks=False)
    memory.start()
    memory.workspace(1000)
    memory.temporary(2000)
    before = memory.allocated_bytes, memory.peak_bytes
    memory.allowance(1 << 30)
    assert (memory.allocated_bytes, memory.peak_bytes) == before, "no part of what the program is told"
    columns = memory.stop().columns
    of_sizes = dict(zip(columns["size_bytes"], columns["address"], strict=True))
    assert min(of_sizes[1000], of_sizes[2000]) >= FIRST_RULE_ADDRESS
    assert max(of_sizes[1000], of_sizes[2000]) < FIRST_ALLOWANCE_ADDRESS <= of_sizes[1 << 30]
    assert len(set(of_sizes.values())) == 3
    assert len(columns["action"]) == 1 + 2 + 2, "a workspace stays"


@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_convolution_may_take_its_unfolded_input_forward_and_backward(is_transposed: bool) -> None:
    memory = FakeMemory(with_stacks=False)
    memory.start()
    kernels = Kernels(memory, (9, 0))
    wide, weight = torch.empty(2, 3, 10, 10, device="meta"), torch.empty(8, 3, 5, 5, device="meta")
    narrow = torch.empty(2, 8, 6, 6, device="meta")
    one, out = (narrow, wide) if is_transposed else (wide, narrow)
    strides = [1, 1], [0, 0], [1, 1], is_transposed
    kernels.after(torch.ops.aten.convolution.default, (one, weight, None, *strides), out)
    kernels.after(torch.ops.aten.convolution_backward.default, (out, one, weight, [0], *strides), None)
    sizes = memory.stop().columns["size_bytes"]
    places, taps = 2 * 6 * 6, 3 * 5 * 5
    assert set(sizes) == {places * taps * 4}
    assert len(sizes) == 4
