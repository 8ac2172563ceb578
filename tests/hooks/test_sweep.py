"""A sweep that remembers the sweep before finds what one that remembers nothing finds, whatever changed in between."""

from __future__ import annotations

import base64
import copy
import json
import struct
import weakref
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.ownership import quick_look  # noqa: E402
from memtrace.hooks.ownership import sweep as sweeping  # noqa: E402
from memtrace.hooks.ownership.facts import Eyes  # noqa: E402
from memtrace.hooks.ownership.owners import Owned, OwnerRows  # noqa: E402
from memtrace.hooks.ownership.sweep import OwnerSweep  # noqa: E402
from memtrace.schema import records  # noqa: E402
from memtrace.schema.names import Category  # noqa: E402
from memtrace.schema.tables import OWNERS  # noqa: E402

BUFFER = bytearray(4 * 64)
"""Memory that one tensor after the other lies in, at one address."""


def placed(count: int, dtype: Any = torch.float32) -> Any:
    """Return a tensor at the address at which each tensor made here is, with a storage of its own."""
    return torch.frombuffer(BUFFER, dtype=dtype, count=count)


class Program:
    """A model, its optimizer, what else is owned, and the sweep that follows them."""

    def __init__(self) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 4))
        self.model.placed = torch.nn.Parameter(placed(64))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.held: list[Owned] = []
        self.sweeper = OwnerSweep(torch, OwnerRows(torch))

    def train(self) -> None:
        """Run one step; gradients stay."""
        self.optimizer.zero_grad()
        (self.model(torch.randn(3, 4)).sum() + self.model.placed.sum()).backward()
        self.optimizer.step()

    def sweep(self, sweeper: OwnerSweep | None = None) -> Any:
        """Return what is owned now."""
        sweeper = sweeper or self.sweeper
        return sweeper.sweep([self.model], [self.optimizer], held=self.held, names=[], now_ns=7, step=3)


@pytest.fixture
def program() -> Program:
    """A program that has trained a step and was swept."""
    made = Program()
    made.train()
    made.sweep()
    return made


def move(program: Program) -> None:
    program.model.to(torch.float64)


def point_elsewhere(program: Program) -> None:
    program.model[0].weight.data = torch.zeros(4, 4)


def point_to_a_part(program: Program) -> None:
    weight = program.model[0].weight
    weight.data = weight.data[:2]


def turn_the_view(program: Program) -> None:
    weight = program.model[0].weight
    weight.data = weight.data.view(2, 8)


def flatten(program: Program) -> None:
    parameters = list(program.model[0].parameters())
    flat = torch.cat([parameter.data.flatten() for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()


def flatten_at_the_address(program: Program) -> None:
    # The parameter stays what and where it was; the storage that it is in is a smaller one.
    program.model.placed.data = placed(48)
    program.sweep()
    program.model.placed.data = placed(64)[:48]


def replace_at_the_address(program: Program) -> None:
    program.model.placed = torch.nn.Parameter(placed(16))


def replace_with_another_type(program: Program) -> None:
    program.model.placed = torch.nn.Parameter(placed(64, torch.int32), requires_grad=False)


def give_the_address_to_a_buffer(program: Program) -> None:
    del program.model.placed
    program.model.register_buffer("placed", placed(64))


def rename(program: Program) -> None:
    program.model.renamed = program.model.placed
    del program.model.placed


def drop_gradients(program: Program) -> None:
    program.optimizer.zero_grad()


def drop_one_gradient(program: Program) -> None:
    program.model[2].weight.grad = None


def make_gradients_again(program: Program) -> None:
    program.optimizer.zero_grad()
    kept = [torch.empty(4, 4) for _ in range(8)]
    program.train()
    del kept


def share_a_gradient(program: Program) -> None:
    program.model[2].weight.grad = program.model[0].weight.grad


def make_state_late(program: Program) -> None:
    late = torch.nn.Parameter(torch.zeros(5))
    program.optimizer.add_param_group({"params": [late]})
    program.sweep()
    late.grad = torch.ones(5)
    program.optimizer.step()


def load_state(program: Program) -> None:
    program.optimizer.load_state_dict(copy.deepcopy(program.optimizer.state_dict()))


def nest_state(program: Program) -> None:
    state = program.optimizer.state[program.model[0].weight]
    state["factors"] = [torch.zeros(4), {"inner": torch.zeros(3)}]


def tie(program: Program) -> None:
    program.model[2].weight = program.model[0].weight


def untie(program: Program) -> None:
    tie(program)
    program.sweep()
    program.model[2].weight = torch.nn.Parameter(torch.zeros(4, 4))


def empty_a_storage(program: Program) -> None:
    program.model[0].weight.untyped_storage().resize_(0)


def fill_a_storage_again(program: Program) -> None:
    storage = program.model[0].weight.untyped_storage()
    storage.resize_(0)
    program.sweep()
    # Something takes the memory that was let go, or the storage might come to lie where it was.
    in_between = [torch.empty(16) for _ in range(50)]
    storage.resize_(4 * 16)
    del in_between


def grow_a_storage(program: Program) -> None:
    program.model[0].weight.untyped_storage().resize_(4 * 32)


def gather(program: Program) -> None:
    program.held = [(Category.COMMUNICATION, "gathered", program.model[0].weight.detach())]


def let_go_again(program: Program) -> None:
    gather(program)
    program.sweep()
    program.held = []
    program.model[0].weight.data = torch.zeros(4, 4)


def add_a_module(program: Program) -> None:
    program.model.append(torch.nn.Linear(4, 2))


CHANGES = (
    *(move, point_elsewhere, point_to_a_part, turn_the_view, flatten, flatten_at_the_address),
    *(replace_at_the_address, replace_with_another_type, give_the_address_to_a_buffer, rename),
    *(drop_gradients, drop_one_gradient, make_gradients_again, share_a_gradient),
    *(make_state_late, load_state, nest_state, tie, untie),
    *(empty_a_storage, fill_a_storage_again, grow_a_storage, gather, let_go_again, add_a_module),
)


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_a_sweep_sees_every_change(program: Program, change: Callable[[Program], None]) -> None:
    before = list(program.sweep())
    change(program)
    after = list(program.sweep())
    assert after == list(program.sweep(OwnerSweep(torch, OwnerRows(torch))))
    assert after != before


@pytest.fixture
def large_program(monkeypatch: pytest.MonkeyPatch) -> Program:
    """A program whose model is taken for a very large one."""
    monkeypatch.setattr(quick_look, "_NUM_IN_FULL", 0)
    made = Program()
    made.train()
    made.sweep()
    return made


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_within_sixteen_sweeps_every_change_of_a_very_large_model_is_seen(
    large_program: Program, change: Callable[[Program], None]
) -> None:
    before = list(large_program.sweep())
    change(large_program)
    afters = [list(large_program.sweep()) for _ in range(16)]
    assert afters[-1] == list(large_program.sweep(OwnerSweep(torch, OwnerRows(torch))))
    assert afters[-1] != before


SAME_BYTES = (point_to_a_part, turn_the_view, flatten_at_the_address, grow_a_storage)
"""Changes of what a tensor is that leave it where it is."""


@pytest.mark.parametrize("change", [one for one in CHANGES if one not in SAME_BYTES], ids=lambda one: one.__name__)
def test_at_once_if_a_tensor_is_another_or_elsewhere(large_program: Program, change: Callable[[Program], None]) -> None:
    change(large_program)
    assert list(large_program.sweep()) == list(large_program.sweep(OwnerSweep(torch, OwnerRows(torch))))


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad, torch.optim.LBFGS])
def test_what_lasts_in_a_very_large_model_is_not_looked_at_in_full(
    large_program: Program, monkeypatch: pytest.MonkeyPatch, optimizer: type[Any]
) -> None:
    program = large_program
    program.optimizer = optimizer(program.model.parameters(), lr=0.1)
    looked: list[Any] = []
    look = Eyes.look

    def counted(eyes: Eyes, tensors: Any) -> Any:
        looked.extend(tensors)
        return look(eyes, tensors)

    monkeypatch.setattr(Eyes, "look", counted)

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


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_what_is_written_is_what_was_found(program: Program, change: Callable[[Program], None]) -> None:
    change(program)
    sweep = program.sweep()
    assert written(sweep) == list(sweep)


def test_rows_are_made_once_for_what_stays(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    num_made = 0
    make = sweeping.lasting_row

    def counted(*args: Any) -> Any:
        nonlocal num_made
        num_made += 1
        return make(*args)

    monkeypatch.setattr(sweeping, "lasting_row", counted)
    for _ in range(5):
        # Gradients are made anew in each step, and are what they were wherever they are.
        program.train()
        program.sweep()
    assert num_made == 0
    program.model[0].weight.data = program.model[0].weight.data.view(8, 2)
    after = program.sweep()
    assert num_made == len(after) > 0


def test_no_tensor_is_kept(program: Program) -> None:
    gone = [weakref.ref(program.model[0].weight.grad), weakref.ref(program.model[0].weight)]
    program.sweep()
    program.model[0].weight.grad = None
    program.optimizer.state.pop(program.model[0].weight)
    program.optimizer.param_groups.clear()
    program.model[0].weight = None
    assert [reference() for reference in gone] == [None, None]


def written(sweep: Any) -> list[tuple[Any, ...]]:
    """Return the rows in the lines of a sweep, as a reader takes them."""
    strings, owners = (json.loads(line) for line in sweep.lines().splitlines())
    words = base64.b64decode(owners["columns"]["address"][records.PACKED])
    owners["columns"]["address"] = list(struct.unpack(f"<{len(words) // 8}q", words))
    num_rows = len(owners["columns"]["address"])
    columns = []
    for column in OWNERS.columns:
        values = owners["columns"][column.name]
        values = values if isinstance(values, list) else [values] * num_rows
        if column.kind == "string":
            values = [None if value is None else strings["values"][value] for value in values]
        columns.append(values)
    return list(zip(*columns, strict=True))
