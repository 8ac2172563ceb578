"""What operators take while they reduce: the bytes of each kind of copy and partial result, worked out by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from memtrace.hooks.fake.events.storages import FakeMemory
from memtrace.hooks.fake.kernels.reducing import Reductions, multiprocessors_of
from memtrace.hooks.fake.kernels.reductions import Multiprocessors, Values, scratch_bytes
from memtrace.hooks.fake.kernels.workspaces import Kernels
from memtrace.schema.options import PredictOptions

aten = torch.ops.aten
A100 = Multiprocessors(108, 2048)
FLOAT32 = Values(4, 4)


def made(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def held(operator: object, *args: object) -> tuple[int, ...]:
    return Reductions(A100).held(operator, args, operator(*args))  # type: ignore[operator]


def test_a_block_more_begins_with_256_values_a_thread() -> None:
    # Blocks of 32 x 4 threads: with 1024 rows each thread has 256 of them.
    assert scratch_bytes((1023, 4096), (4096, 1), [0], FLOAT32, A100)[0] == 4096 * 16 * 4 * 32 * 4
    assert scratch_bytes((1020, 4096), (4096, 1), [0], FLOAT32, A100) == (0, 0)


def test_rows_share_their_partial_results_in_a_block() -> None:
    # 512 threads of a block share each of a thousand values: four loaded at once, 2048 values a thread in turn.
    partial, counters = scratch_bytes((1 << 22,), (1,), [0], FLOAT32, A100)
    blocks = max(min(108 * (2048 // 512), -(-(1 << 22) // 512 // 16)), -(-(1 << 22) // 512 // 256))
    assert (partial, counters) == (4 * blocks, 4)


def test_what_32_bits_do_not_reach_is_reduced_in_halves() -> None:
    rows = 1 << 18
    whole = scratch_bytes((rows, 4096), (4096, 1), [0], FLOAT32, A100)
    assert 4 * rows * 4096 > 2**31
    assert whole == scratch_bytes((rows // 2, 4096), (4096, 1), [0], FLOAT32, A100)


@pytest.mark.parametrize(
    ("dtype", "operator", "copied"),
    [
        (torch.bool, aten.sum.default, 8),
        (torch.int32, aten.sum.default, 8),
        (torch.int64, aten.sum.default, 0),
        (torch.uint8, aten.prod.default, 8),
        (torch.float32, aten.sum.default, 0),
        (torch.bool, aten.any.default, 0),
        (torch.int32, aten.amax.default, 0),
    ],
)
def test_numbers_of_another_type_are_cast_first(dtype: torch.dtype, operator: object, copied: int) -> None:
    sizes = held(operator, made(100, 50, dtype=dtype))
    assert sizes[:1] == ((5000 * copied,) if copied else ()) or (not copied and max(sizes, default=0) < 5000)


def test_a_largest_value_of_all_is_sought_in_a_row() -> None:
    assert held(aten.max.default, made(100, 50).t())[0] == 5000 * 4, "a copy of it, in order"
    assert max(held(aten.max.default, made(100, 50)), default=0) < 5000


def test_the_gradient_of_the_bias_of_a_convolution_is_a_sum() -> None:
    gradient, one, weight = made(64, 64, 56, 56), made(64, 3, 56, 56), made(64, 3, 1, 1)
    args = [gradient, one, weight, [64], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, True]]
    expected = scratch_bytes(gradient.shape, gradient.stride(), [0, 2, 3], FLOAT32, A100)
    # Blocks of 32 x 16 threads, 392 values each; 64 of them would leave 368 of 432 places empty, so each becomes seven.
    assert expected == (64 * 7 * 4, 64 * 4)
    assert Reductions(A100).held(aten.convolution_backward.default, args, None) == expected
    args[10] = [True, True, False]
    assert Reductions(A100).held(aten.convolution_backward.default, args, None) == ()


def test_all_of_it_is_there_at_once_and_given_back() -> None:
    memory = FakeMemory(with_stacks=False)
    memory.start()
    flags = made(1024, 4096, dtype=torch.bool)
    args = (flags, [0])
    Kernels(memory, (8, 0), A100).after(aten.sum.dim_IntList, args, aten.sum.dim_IntList(*args))
    columns = memory.stop().columns
    sizes = Reductions(A100).held(aten.sum.dim_IntList, args, aten.sum.dim_IntList(*args))
    assert len(sizes) == 3
    assert memory.allocated_bytes == 0
    assert memory.peak_bytes >= sum(sizes)
    assert list(columns["size_bytes"]) == [*sizes, *reversed(sizes)]


@pytest.mark.parametrize(
    ("name", "capability", "expected"),
    [
        ("t4-16gb", (7, 5), Multiprocessors(40, 1024)),
        ("24GiB", (8, 6), Multiprocessors(82, 1536)),
        ("mi300x-192gb", (9, 4), None),
        ("of another kind", (6, 1), None),
    ],
)
def test_the_multiprocessors_of_a_gpu(name: str, capability: tuple[int, int], expected: Multiprocessors | None) -> None:
    gpu = PredictOptions(gpu_name=name, gpu_bytes=1 << 34, capability=capability, num_steps=0)
    assert multiprocessors_of(gpu) == expected
    if expected is None:
        assert Reductions(None).held(aten.sum.default, (made(1 << 20),), made()) == ()
