"""A program whose owners are swept, and what may change in it between two sweeps."""

from __future__ import annotations

import copy
from typing import Any

import torch

from memtrace.hooks.ownership.owners import Owned, OwnerRows
from memtrace.hooks.ownership.sweep import OwnerSweep
from memtrace.schema.names import Category

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
        self.roots = [self.model]
        self.held: list[Owned] = []
        self.sweeper = OwnerSweep(torch, OwnerRows(torch))

    @classmethod
    def trained(cls) -> Program:
        """Return a program that has trained a step and was swept."""
        made = cls()
        made.train()
        made.sweep()
        return made

    def train(self) -> None:
        """Run one step; gradients stay."""
        self.optimizer.zero_grad()
        (self.model(torch.randn(3, 4)).sum() + self.model.placed.sum()).backward()
        self.optimizer.step()

    def sweep(self, sweeper: OwnerSweep | None = None) -> Any:
        """Return what is owned now."""
        sweeper = sweeper or self.sweeper
        return sweeper.sweep(self.roots, [self.optimizer], held=self.held, names=[], now_ns=7, step=3)


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


def swap_data(program: Program) -> None:
    first, last = program.model[0].weight, program.model[2].weight
    first.data, last.data = last.data, first.data


def swap_gradients(program: Program) -> None:
    first, last = program.model[0].weight, program.model[2].weight
    first.grad, last.grad = last.grad, first.grad


def swap_modules(program: Program) -> None:
    program.model[0], program.model[2] = program.model[2], program.model[0]


def swap_names(program: Program) -> None:
    module = program.model[1]
    module._parameters["weight"], module._parameters["bias"] = module.bias, module.weight


def swap_with_nothing(program: Program) -> None:
    # The same names, and the same parameters but for one that is nowhere: which has it tells only where it stands.
    module = program.model[1]
    module._parameters["weight"], module._parameters["bias"] = None, module.weight
    program.sweep()
    module._parameters["weight"], module._parameters["bias"] = module.bias, None


def swap_states(program: Program) -> None:
    state = program.optimizer.state[program.model[0].weight]
    state["exp_avg"], state["exp_avg_sq"] = state["exp_avg_sq"], state["exp_avg"]


def swap_states_of_parameters(program: Program) -> None:
    states, first, last = program.optimizer.state, program.model[0].weight, program.model[2].weight
    states[first], states[last] = states[last], states[first]


def set_in_place(program: Program) -> None:
    with torch.no_grad():
        program.model[0].weight.set_(torch.zeros(4, 4))


def hang_something_on_a_parameter(program: Program) -> None:
    program.model[0].weight.main_grad = torch.zeros(4, 4)


def make_a_gradient_sparse(program: Program) -> None:
    program.model[0].weight.grad = torch.eye(4).to_sparse()


def parametrize(program: Program) -> None:
    torch.nn.utils.parametrizations.weight_norm(program.model[0])


class OwnKind(torch.nn.Parameter):
    """A parameter of a class of the program's."""


def replace_by_an_own_kind(program: Program) -> None:
    program.model.placed = OwnKind(placed(64))


def own_no_module(program: Program) -> None:
    program.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(5))]})


def let_a_gradient_be_a_part(program: Program) -> None:
    weight = program.model[0].weight
    weight.grad = torch.zeros(3, 4, 4)[1]


def give_a_state_to_a_buffer(program: Program) -> None:
    program.model.register_buffer("average", program.optimizer.state[program.model[0].weight]["exp_avg"])


CHANGES = (
    *(move, point_elsewhere, point_to_a_part, turn_the_view, flatten, flatten_at_the_address),
    *(replace_at_the_address, replace_with_another_type, give_the_address_to_a_buffer, rename),
    *(drop_gradients, drop_one_gradient, make_gradients_again, share_a_gradient),
    *(make_state_late, load_state, nest_state, tie, untie),
    *(empty_a_storage, fill_a_storage_again, grow_a_storage, gather, let_go_again, add_a_module),
    *(swap_data, swap_gradients, swap_modules, swap_names, swap_with_nothing, swap_states, swap_states_of_parameters),
    *(set_in_place, hang_something_on_a_parameter, make_a_gradient_sparse, parametrize, replace_by_an_own_kind),
    *(own_no_module, let_a_gradient_be_a_part, give_a_state_to_a_buffer),
)
