"""Shapes that only the data says: what a prediction assumes is the most that the real operator can make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from memtrace.hooks.fake.events.assumptions import BOUND, REFUSED, Assumptions  # noqa: E402
from memtrace.hooks.fake.events.storages import CUDA, FakeMemory  # noqa: E402
from memtrace.hooks.fake.kernels.workspaces import Kernels  # noqa: E402
from memtrace.hooks.fake.tensors.data_dependent_shapes import Bounds  # noqa: E402
from memtrace.hooks.fake.tensors.operators import Operators  # noqa: E402

ROWS, COLUMNS = 3, 5
Call = Callable[[Any], Any]


class Fake:
    """The mode that sees operators, and what it said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.memory = FakeMemory(with_stacks=False)
        self.assumptions = Assumptions(lambda slug, message: self.said.append((slug, message)))
        self.mode = Operators(self.memory, Kernels(self.memory, (8, 0)), self.assumptions)

    def tensor(self, real: Any) -> Any:
        with self.mode:
            return torch.empty(real.shape, dtype=real.dtype, device="meta")

    def run(self, call: Call, real: Any) -> Any:
        fake = self.tensor(real)
        with self.mode:
            return call(fake)

    def notes(self) -> list[tuple[str, str]]:
        return list(self.assumptions.notes())


@pytest.fixture
def fake() -> Iterator[Fake]:
    yield Fake()
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()


def shapes(out: Any) -> list[tuple[tuple[int, ...], Any]]:
    found = out if isinstance(out, (list, tuple)) else [out]
    return [(tuple(one.shape), one.dtype) for one in found]


ALL_FOUND = torch.arange(1, ROWS * COLUMNS + 1).reshape(ROWS, COLUMNS)
"""No zero and nothing twice: every operator below finds as much as it can."""
CALLS: dict[str, Call] = {
    "nonzero": torch.nonzero,
    "nonzero of dimensions": lambda x: torch.nonzero(x, as_tuple=True),
    "where": lambda x: torch.where(x > 0),
    "argwhere": torch.argwhere,
    "masked_select": lambda x: torch.masked_select(x, x > 0),
    "masked_select of one row": lambda x: torch.masked_select(x, (x > 0)[0]),
    "index": lambda x: x[x > 0],
    "index of columns": lambda x: x[:, (x > 0)[0]],
    "index of rows": lambda x: x[(x > 0)[:, 0]],
    "unique": lambda x: torch.unique(x, return_inverse=True, return_counts=True),
    "unique alone": torch.unique,
    "unique rows": lambda x: torch.unique(x, dim=0, return_inverse=True, return_counts=True),
    "unique_consecutive": lambda x: torch.unique_consecutive(x, return_inverse=True, return_counts=True),
    "unique_consecutive rows": lambda x: torch.unique_consecutive(x, dim=0),
}


@pytest.mark.parametrize("name", CALLS)
def test_all_is_found(fake: Fake, name: str) -> None:
    call = CALLS[name]
    assert shapes(fake.run(call, ALL_FOUND)) == shapes(call(ALL_FOUND))
    ((slug, message),) = fake.notes()
    assert slug == BOUND
    assert "test_fake_bounds.py:" in message
    assert message.endswith("(once)")


@pytest.mark.parametrize("name", [name for name in CALLS if "dimensions" not in name and name != "where"])
@settings(max_examples=5, deadline=None)
@given(numbers=st.lists(st.integers(0, 2), min_size=ROWS * COLUMNS, max_size=ROWS * COLUMNS))
def test_real_data_never_makes_more(name: str, numbers: list[int]) -> None:
    real = torch.tensor(numbers).reshape(ROWS, COLUMNS)
    assumed = Fake().run(CALLS[name], real)
    for most, found in zip(shapes(assumed), shapes(CALLS[name](real)), strict=True):
        assert all(largest >= size for largest, size in zip(most[0], found[0], strict=True))


def test_the_excess_is_what_would_be_there_if_nothing_were_found(fake: Fake) -> None:
    fake.run(torch.nonzero, ALL_FOUND)
    excess = 2 * ROWS * COLUMNS * 8
    assert f"up to {excess} B too much" in fake.notes()[0][1]


def test_places_that_flags_find_take_memory_while_they_are_used(fake: Fake) -> None:
    real = ALL_FOUND.float()
    values, mask = fake.tensor(real), fake.tensor(real > 0)
    before = fake.memory.allocated_bytes
    fake.memory.peak_bytes = before
    with fake.mode:
        values[mask] = fake.tensor(real.flatten())
    # A row and a column of int64 for each element, and the values that are written; each rounded to 512 bytes.
    assert fake.memory.peak_bytes - before == 2 * 512
    assert fake.memory.allocated_bytes == before
    with fake.mode:
        values[mask] = 0.0
    # One value is filled in through the mask itself, and the number is on the host.
    assert fake.memory.peak_bytes - before == 2 * 512
    assert len(fake.notes()) == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_short_types_can_fill_so_many_bins(fake: Fake, dtype: Any) -> None:
    largest = torch.full((3,), torch.iinfo(dtype).max, dtype=dtype)
    assert shapes(fake.run(torch.bincount, largest)) == shapes(torch.bincount(largest))


def test_a_length_that_is_given_is_taken(fake: Fake) -> None:
    real = torch.tensor([1, 2, 1])
    assert shapes(fake.run(lambda x: torch.bincount(x, minlength=9), real)) == [((9,), torch.int64)]
    assert "minlength" in fake.notes()[0][1]
    assert shapes(fake.run(lambda x: torch.repeat_interleave(x, x, output_size=4), real)) == [((4,), torch.int64)]


@pytest.mark.parametrize(
    ("call", "remedy"),
    [(torch.bincount, "give minlength"), (lambda x: torch.repeat_interleave(x, x), "give output_size")],
)
def test_without_a_largest_shape_the_program_ends(fake: Fake, call: Call, remedy: str) -> None:
    with pytest.raises(SystemExit):
        fake.run(call, torch.tensor([1, 2, 1]))
    ((slug, message),) = fake.said
    assert slug == REFUSED
    assert "test_fake_bounds.py:" in message
    assert message.endswith(remedy)
    # Whoever catches that does not get on.
    with pytest.raises(SystemExit):
        fake.run(torch.exp, torch.ones(3))


def test_classes_must_be_told(fake: Fake) -> None:
    bounds = Bounds(fake.memory, fake.assumptions, fake.mode.known)
    words = torch.empty(4, dtype=torch.int64, device="meta")
    assert shapes(bounds.one_hot(words, 7)) == [((4, 7), torch.int64)]
    assert shapes(bounds.one_hot(torch.tensor([0, 2]))) == [((2, 3), torch.int64)]
    with pytest.raises(SystemExit):
        bounds.one_hot(words)
    assert fake.said[0][1].endswith("give num_classes")


def test_a_plain_index_assumes_nothing(fake: Fake) -> None:
    out = fake.run(lambda x: x[torch.tensor([0, 2])], ALL_FOUND)
    assert shapes(out) == [((2, COLUMNS), torch.int64)]
    assert fake.memory.kind_of(out) == CUDA
    assert fake.notes() == []


def test_an_operator_of_a_library_that_leaves_its_size_to_the_data_ends_the_program(fake: Fake) -> None:
    @torch.library.custom_op("memtrace_tests::found", mutates_args=())
    def found(one: torch.Tensor) -> torch.Tensor:
        return one[one > 0]

    @found.register_fake
    def _(one: torch.Tensor) -> torch.Tensor:
        return one.new_empty(torch.library.get_ctx().new_dynamic_size())

    with pytest.raises(SystemExit):
        fake.run(found, torch.ones(ROWS))
    assert [slug for slug, message in fake.said if "memtrace_tests::found" in message] == [REFUSED]


def test_of_boxes_that_overlap_all_may_stay(fake: Fake) -> None:
    ops = pytest.importorskip("torchvision.ops")
    kept = fake.run(lambda boxes: ops.nms(boxes, boxes[:, 0], 0.5), torch.ones(ROWS, 4))
    assert shapes(kept) == [((ROWS,), torch.int64)]
    assert [slug for slug, _ in fake.notes()] == [BOUND]
