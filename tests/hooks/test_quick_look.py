"""A quick look at a very large model finds at once whatever is another tensor, or elsewhere, and the rest in time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.ownership import quick_look  # noqa: E402
from memtrace.hooks.ownership.facts import Eyes  # noqa: E402
from memtrace.hooks.ownership.owners import OwnerRows  # noqa: E402
from memtrace.hooks.ownership.sweep import OwnerSweep  # noqa: E402
from tests.hooks import swept  # noqa: E402
from tests.hooks.swept import CHANGES, Program  # noqa: E402

# Changes of what a tensor is that leave it where it is.
SAME_BYTES = (swept.point_to_a_part, swept.turn_the_view, swept.flatten_at_the_address, swept.grow_a_storage)
AT_ONCE = [change for change in CHANGES if change not in SAME_BYTES]


@pytest.fixture(autouse=True)
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take each model for a very large one."""
    monkeypatch.setattr(quick_look, "_NUM_IN_FULL", 0)


@pytest.fixture(params=[1, 2, 10**6], ids=["one at once", "two at once", "all at once"])
def _in_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at it part by part; a part holds one tensor of each share, or several."""
    monkeypatch.setattr(quick_look, "_NUM_AT_ONCE", 16 * request.param)


@pytest.fixture
def large_program() -> Program:
    """A program whose model is taken for a very large one."""
    return Program.trained()


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_within_sixteen_sweeps_every_change_of_a_very_large_model_is_seen(
    large_program: Program, change: Callable[[Program], None]
) -> None:
    before = list(large_program.sweep())
    change(large_program)
    afters = [list(large_program.sweep()) for _ in range(16)]
    assert afters[-1] == list(large_program.sweep(OwnerSweep(torch, OwnerRows(torch))))
    assert afters[-1] != before


def as_it_is(program: Program) -> None:
    pass


def tied(program: Program) -> None:
    swept.tie(program)
    program.optimizer = torch.optim.AdamW(program.model.parameters(), lr=0.1)
    program.train()


def without_a_module(program: Program) -> None:
    program.roots = []


def with_gradients_in_one_storage(program: Program) -> None:
    # As the backward of a stack leaves them: at one address, each at another offset.
    parameters = list(program.model.parameters())
    rows = torch.zeros(len(parameters), 64)
    for row, parameter in zip(rows, parameters, strict=True):
        parameter.grad = row[: parameter.numel()].view(parameter.shape)


def with_one_gradient_for_two(program: Program) -> None:
    program.model[2].bias.grad = program.model[0].bias.grad.view(4)


def with_gradients_in_a_buffer(program: Program) -> None:
    # As in FSDP1: one storage that stays, of which gradients are parts.
    flat = torch.zeros(64)
    program.model.register_buffer("flat", flat)
    for parameter in program.model.parameters():
        parameter.grad = flat[: parameter.numel()].view(parameter.shape)


def with_few_gradients(program: Program) -> None:
    for parameter in list(program.model.parameters())[::2]:
        parameter.grad = None


STARTS = (
    as_it_is,
    tied,
    without_a_module,
    with_gradients_in_one_storage,
    with_one_gradient_for_two,
    with_few_gradients,
)


@pytest.mark.usefixtures("_in_parts")
@pytest.mark.parametrize("start", STARTS, ids=lambda one: one.__name__)
def test_at_once_if_a_tensor_is_another_or_elsewhere(start: Callable[[Program], None]) -> None:
    for change in AT_ONCE:
        program = Program()
        program.train()
        start(program)
        program.sweep()
        program.sweep()
        change(program)
        fresh = OwnerSweep(torch, OwnerRows(torch))
        assert list(program.sweep()) == list(program.sweep(fresh)), change.__name__


def move_gradients(program: Program, kept: list[Any]) -> None:
    """Put each gradient elsewhere, in a storage like the one that it was in."""
    moved: dict[int, Any] = {}
    for parameter in program.model.parameters():
        if parameter.grad is not None:
            storage = parameter.grad.untyped_storage()
            moved.setdefault(storage.data_ptr(), storage.clone())
            kept.append(parameter.grad)
            parameter.grad = torch.empty(0).set_(
                moved[storage.data_ptr()], parameter.grad.storage_offset(), parameter.shape, parameter.grad.stride()
            )


@pytest.mark.parametrize("start", STARTS, ids=lambda one: one.__name__)
def test_what_is_counted_of_rows_is_what_they_say(start: Callable[[Program], None]) -> None:
    """Of the rows that stand as they stood it is known, and of those that moved it is counted."""
    program = Program()
    program.train()
    start(program)
    program.sweep()
    kept: list[Any] = []
    for _ in range(3):
        found = program.sweep()
        rows = list(found)
        blocks = {row[3]: (row[2], row[4], row[6]) for row in reversed(rows)}
        assert found.storages() == {address: block[:2] for address, block in blocks.items()}
        by_category = {category: 0 for _, _, category in blocks.values()}
        for _, size, category in blocks.values():
            by_category[category] += size
        assert found.bytes_by_category("cpu") == by_category
        move_gradients(program, kept)
        assert list(program.sweep()) != rows


@pytest.mark.parametrize("start", STARTS, ids=lambda one: one.__name__)
def test_it_stands_for_a_look_in_full_from_each_of_these_starts(
    start: Callable[[Program], None], looked: list[Any]
) -> None:
    """Or the tests above would tell nothing of it."""
    program = Program()
    program.train()
    start(program)
    rows = list(program.sweep())
    assert len(looked) >= len(rows) > 0
    for _ in range(20):
        looked.clear()
        assert list(program.sweep()) == rows
        assert len(looked) < len(rows)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list of tensors that were looked at in full since it was cleared."""
    tensors: list[Any] = []
    look = Eyes.look

    def noted(eyes: Eyes, given: Any) -> Any:
        tensors.extend(given)
        return look(eyes, given)

    monkeypatch.setattr(Eyes, "look", noted)
    return tensors


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad, torch.optim.LBFGS])
def test_what_lasts_in_a_very_large_model_is_not_looked_at_in_full(
    large_program: Program, looked: list[Any], optimizer: type[Any]
) -> None:
    program = large_program
    program.optimizer = optimizer(program.model.parameters(), lr=0.1)

    def closure() -> Any:
        loss = program.model(torch.ones(3, 4)).sum() + program.model.placed.sum()
        loss.backward()
        return loss

    counts = []
    for _ in range(9):
        program.optimizer.zero_grad()
        program.optimizer.step(closure)
        looked.clear()
        num_rows = len(program.sweep())
        counts.append(len(looked))
    num_gradients = sum(one.grad is not None for one in program.model.parameters())
    num_lasting = num_rows - num_gradients
    # LBFGS keeps lists, which are looked through in full.
    expected = num_rows if optimizer is torch.optim.LBFGS else num_gradients + -(-num_lasting // 16)
    assert max(counts[1:]) <= expected
    assert counts[0] > counts[1] or optimizer is torch.optim.LBFGS


def test_a_base_that_is_frozen_too_late_is_told_of_a_very_large_model(large_program: Program) -> None:
    program = large_program
    program.optimizer = torch.optim.AdamW(program.model[0].parameters(), lr=0.1)
    for _ in range(3):
        program.train()
        program.sweeper.sweep([program.model], [program.optimizer], held=[], names=[], now_ns=7, step=3, ends_step=True)
    assert sorted(program.sweeper.unstepped.names) == ["1.bias", "1.weight", "2.bias", "2.weight", "placed"]


def test_a_model_that_torch_keeps_elsewhere_is_looked_at_in_full(looked: list[Any]) -> None:
    program = Program()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program.roots = [torch.jit.trace(torch.nn.Linear(4, 4), torch.zeros(1, 4))]
    program.optimizer = torch.optim.SGD(program.roots[0].parameters(), lr=0.1)
    for _ in range(3):
        looked.clear()
        assert [row[7] for row in program.sweep()] == ["weight", "bias"]
        assert len(looked) == 2
