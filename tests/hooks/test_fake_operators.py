"""Operators of fake tensors: what they answer without data, and which sums of gradients take no new memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.fake.events.assumptions import OPERATOR, REFUSED, VALUES, Assumptions  # noqa: E402
from memtrace.hooks.fake.events.storages import CUDA, FakeMemory  # noqa: E402
from memtrace.hooks.fake.kernels.workspaces import Kernels  # noqa: E402
from memtrace.hooks.fake.tensors.operators import Operators  # noqa: E402
from memtrace.hooks.fake.tensors.reads import constant  # noqa: E402

NUMBERS = 1024
BYTES = NUMBERS * 4


class Fake:
    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.memory = FakeMemory(with_stacks=False)
        self.assumptions = Assumptions(lambda slug, message: self.said.append((slug, message)))
        self.mode = Operators(self.memory, Kernels(self.memory, (8, 0)), self.assumptions)

    def leaf(self) -> torch.Tensor:
        return torch.empty(NUMBERS, device="meta", requires_grad=True)

    def taken(self) -> int:
        """Return the bytes of all allocations since the last look."""
        batch = self.memory.stop()
        self.memory.start()
        if not batch.columns:
            return 0
        alloc = batch.strings.id_of("alloc")
        pairs = zip(batch.columns["action"], batch.columns["size_bytes"], strict=True)
        return sum(size for action, size in pairs if action == alloc)


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    made.memory.start()
    with made.mode:
        yield made


def test_a_gradient_that_nobody_else_holds_is_added_to(fake: Fake) -> None:
    x = fake.leaf()
    y = x * 2
    end = y.exp() * y.sin()
    grad = torch.ones_like(end)
    fake.taken()
    torch.autograd.grad(end, x, grad)
    # Gradients of exp and sin, each with a factor of its own; their sum is made in place; then that of y.
    of_product, of_exp, of_sin, of_y = 2, 1, 2, 1
    assert fake.taken() == (of_product + of_exp + of_sin + of_y) * BYTES


def test_a_gradient_that_is_held_elsewhere_is_not_added_to(fake: Fake) -> None:
    x = fake.leaf()
    y = x * 2
    end = y + y.exp()
    grad = torch.ones_like(end)
    fake.taken()
    torch.autograd.grad(end, x, grad)
    # A sum hands its gradient on as it is: the first gradient of y is the program's own, so that the sum is made anew.
    of_exp, of_sum, of_y = 1, 1, 1
    assert fake.taken() == (of_exp + of_sum + of_y) * BYTES


def test_sums_in_a_function_of_the_program_take_memory(fake: Fake) -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(_ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return (grad * 2) + grad

    x = fake.leaf()
    end = Doubled.apply(x)
    grad = torch.ones_like(end)
    fake.taken()
    torch.autograd.grad(end, x, grad)
    assert fake.taken() == 2 * BYTES


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(torch.float32, 1.0), (torch.bfloat16, 1.0), (torch.int64, 1), (torch.bool, False), (torch.complex64, 1 + 0j)],
)
def test_a_value_is_a_constant_of_its_type(fake: Fake, dtype: torch.dtype, value: Any) -> None:
    one = torch.empty((), dtype=dtype, device="meta")
    read = one.item()
    assert read == constant(dtype) == value
    assert type(read) is type(value)
    ((slug, message),) = fake.assumptions.notes()
    assert slug == VALUES
    assert "test_fake_operators.py:" in message


def test_lines_are_counted_apart(fake: Fake) -> None:
    one = torch.empty((), device="meta")
    for _ in range(3):
        one.item()
    one.item()
    messages = [message for _, message in fake.assumptions.notes()]
    assert len(messages) == 2
    assert messages[0].endswith("(3 times)")
    assert messages[1].endswith("(once)")


def test_many_lines_are_summed_up() -> None:
    fake = Fake()
    for number in range(25):
        fake.assumptions.value(f"value {number:02}")
    messages = [message for _, message in fake.assumptions.notes()]
    assert len(messages) == 21
    assert messages[-1] == "the same in 5 more places"


def test_tensors_of_two_devices_meet(fake: Fake) -> None:
    device = torch.empty(3, device="meta")
    fake.taken()
    assert (device + torch.ones(3)).is_meta
    assert (device + torch.tensor(1.0)).is_meta
    host = torch.ones(3)
    assert fake.taken() == 2 * 3 * 4
    host.fill_(7).copy_(device)
    assert host.tolist() == [7, 7, 7]
    assert device.to("cpu").tolist() == [1, 1, 1]
    device.copy_(host)
    assert fake.taken() == 0
    assert host.zero_().copy_(device).tolist() == device.to("cpu").tolist() == [7, 7, 7]


def test_what_has_nothing_to_do_with_the_device_runs_as_ever(fake: Fake) -> None:
    assert torch.nonzero(torch.tensor([0, 5])).tolist() == [[1]]
    assert fake.taken() == 0
    assert list(fake.assumptions.notes()) == []


@pytest.fixture(scope="module")
def library() -> Iterator[Any]:
    made = torch.library.Library("memtrace_test", "DEF")
    made.define("write(Tensor(a!) x, Tensor y) -> Tensor(a!)")
    made.define("swap(Tensor(a!) x, Tensor(b!) y) -> (Tensor(b!), Tensor(a!))")
    made.define("nothing(Tensor(a!) x) -> ()")
    made.define("view(Tensor(a) x) -> Tensor(a)")
    made.define("make(Tensor x) -> Tensor")
    for name in ("write", "swap", "nothing", "view", "make"):
        made.impl(name, lambda *_: None, "CPU")
    yield torch.ops.memtrace_test
    made._destroy()


def test_an_operator_that_only_writes_is_taken_at_its_word(fake: Fake, library: Any) -> None:
    x, y = torch.empty(3, device="meta"), torch.empty(4, device="meta")
    fake.taken()
    assert library.write(x, y) is x
    swapped = library.swap(x, y)
    assert [one.shape[0] for one in swapped] == [4, 3]
    assert library.nothing(x) is None
    assert fake.taken() == 0
    notes = list(fake.assumptions.notes())
    assert {slug for slug, _ in notes} == {OPERATOR}
    assert {"memtrace_test::" + name for name in ("write", "swap", "nothing")} == {
        message.split()[1] for _, message in notes
    }


@pytest.mark.parametrize("name", ["make", "view"])
def test_an_operator_that_makes_something_unknown_ends_the_program(fake: Fake, library: Any, name: str) -> None:
    with pytest.raises(SystemExit):
        getattr(library, name)(torch.empty(3, device="meta"))
    ((slug, message),) = fake.said
    assert slug == REFUSED
    assert f"memtrace_test::{name}" in message


def test_an_error_of_the_program_stays_its_own(fake: Fake) -> None:
    with pytest.raises(RuntimeError, match="broadcast"):
        torch.empty(3, device="meta") + torch.empty(4, device="meta")
    assert fake.said == []


def test_fused_optimizers_take_nothing(fake: Fake) -> None:
    parameter = torch.empty(NUMBERS, device="meta", requires_grad=True)
    parameter.grad = torch.empty(NUMBERS, device="meta")
    moments = [torch.empty(NUMBERS, device="meta") for _ in range(2)]
    step = [torch.empty((), device="meta")]
    fake.taken()
    options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.9, "weight_decay": 0.0, "eps": 1e-8}
    torch._fused_adam_(
        [parameter.detach()], [parameter.grad], moments[:1], moments[1:], [], step,
        amsgrad=False, maximize=False, **options,
    )  # fmt: skip
    assert fake.taken() == 0
    assert fake.memory.kind_of(parameter) == CUDA
