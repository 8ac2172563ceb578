"""What Python sees of a fake tensor: its device, its values, and the calls where CUDA takes another path."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.fake.events.assumptions import Assumptions  # noqa: E402
from memtrace.hooks.fake.events.storages import FakeMemory  # noqa: E402
from memtrace.hooks.fake.kernels.attention import Attention  # noqa: E402
from memtrace.hooks.fake.kernels.workspaces import Kernels  # noqa: E402
from memtrace.hooks.fake.tensors.functions import Functions  # noqa: E402
from memtrace.hooks.fake.tensors.operators import Operators  # noqa: E402

NUMBERS = 1024


class Fake:
    def __init__(self) -> None:
        self.memory = FakeMemory(with_stacks=False)
        self.memory.start()
        self.assumptions = Assumptions(lambda *_: None)
        self.operators = Operators(self.memory, Kernels(self.memory, (8, 0)), self.assumptions)
        self.functions = Functions(self.memory, self.assumptions, Attention((8, 0)), self.operators.reads)

    def taken(self) -> list[int]:
        """Return the sizes of allocations since the last look."""
        batch = self.memory.stop()
        self.memory.start()
        if not batch.columns:
            return []
        alloc = batch.strings.id_of("alloc")
        pairs = zip(batch.columns["action"], batch.columns["size_bytes"], strict=True)
        return [size for action, size in pairs if action == alloc]

    def whats(self) -> set[str]:
        return {message.partition(": ")[2].rpartition(" (")[0] for _, message in self.assumptions.notes()}


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    with made.operators, made.functions:
        yield made


Softmax = Callable[..., torch.Tensor]
SOFTMAX: dict[str, Softmax] = {
    "torch.softmax": lambda x, dtype: torch.softmax(x, -1, dtype),
    "Tensor.softmax": lambda x, dtype: x.softmax(dim=-1, dtype=dtype),
    "torch.log_softmax": lambda x, dtype: torch.log_softmax(input=x, dim=-1, dtype=dtype),
    "Tensor.log_softmax": lambda x, dtype: x.log_softmax(-1, dtype),
}


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize(
    ("dtype", "copies"), [(torch.float16, []), (torch.bfloat16, [4 * NUMBERS]), (torch.float32, [])]
)
def test_only_a_softmax_of_float16_widens_without_a_copy(
    fake: Fake, name: str, dtype: torch.dtype, copies: list[int]
) -> None:
    x = torch.empty(NUMBERS, dtype=dtype, device="cuda")
    fake.taken()
    out = SOFTMAX[name](x, torch.float32)
    assert out.dtype is torch.float32
    assert fake.taken() == [*copies, 4 * NUMBERS]


def test_a_tensor_says_that_it_is_on_the_gpu(fake: Fake) -> None:
    made = torch.empty(NUMBERS, device="cuda")
    moved = torch.ones(NUMBERS).to("cuda")
    assert fake.taken() == [4 * NUMBERS] * 2
    for one in (made, moved, made[3:], made + moved, made.cuda()):
        assert str(one.device) == "cuda:0"
        assert one.is_cuda
        assert not one.is_meta
        assert one.get_device() == 0
    assert fake.whats() == set()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 tells the line that runs, and not where in it")
def test_values_that_are_read_are_assumed_and_said(fake: Fake) -> None:
    loss = torch.randn((), device="cuda")
    read = {"a value was read from the GPU and taken to be 1, or False for a flag"}
    assert (loss.item(), float(loss), int(loss), bool(loss)) == (1.0, 1.0, 1, True)
    assert fake.whats() == read
    many = torch.empty(2, 2, device="cuda")
    moved = {"a tensor was moved to the host and taken to hold ones"}
    assert many.cpu().tolist() == many.tolist() == many.cpu().numpy().tolist() == [[1, 1], [1, 1]]
    assert fake.whats() == read | moved
    assert "size=(2, 2)" in fake.functions.described(many)
    assert fake.whats() == read | moved | {"a tensor was printed without its values"}


def test_dropout_keeps_one_byte_an_element(fake: Fake) -> None:
    x = torch.empty(NUMBERS, dtype=torch.float16, device="cuda", requires_grad=True)
    fake.taken()
    out = torch.dropout(x, 0.1, True)
    assert sorted(fake.taken()) == [NUMBERS, 2 * NUMBERS]
    assert out.dtype is torch.float16
    assert torch.dropout(x, 0.1, False) is x
    assert torch.dropout(torch.ones(4), 0.0, True).tolist() == [1, 1, 1, 1]
