"""Tensors at which graphs end: which of them a program trains, what it calls them, and that none is kept alive."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memtrace.hooks.keepers.program_frames import ProgramModules  # noqa: E402
from memtrace.hooks.keepers.variable_names import variable_names  # noqa: E402
from memtrace.hooks.loop.by_hand import ByHand  # noqa: E402
from memtrace.hooks.ownership.saved import SavedWalk  # noqa: E402
from memtrace.hooks.parts.chunk import Row  # noqa: E402
from memtrace.schema.names import Category  # noqa: E402


def trained(by_hand: ByHand) -> list[tuple[Category, str]]:
    """Return category and name of all that is trained."""
    return [(category, name) for category, name, _ in by_hand.owned()]


def run_pass(by_hand: ByHand, loss: torch.Tensor, names: Iterable[tuple[torch.Tensor, str]] = ()) -> list[Row]:
    """Run a backward pass as the training loop follows it; a row of owners is a category and a name."""
    known = {id(tensor): name for tensor, name in names}
    rows = by_hand.pass_begins(SavedWalk(torch).leaves([loss]), (), lambda _: known)
    loss.backward()
    by_hand.pass_ended()
    by_hand.note_rows(lambda found: [(str(category), name) for category, name, _ in found])
    return rows


def leaf() -> torch.Tensor:
    return torch.ones(4, 4, requires_grad=True)


def through_data(weight: torch.Tensor) -> None:
    weight.data -= 0.1


def in_place(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight -= 0.1


@pytest.mark.parametrize("write", [through_data, in_place])
def test_what_is_written_to_between_two_passes_is_trained(write: Any) -> None:
    by_hand, weight, other = ByHand(torch), leaf(), leaf()
    names = (weight, "weight"), (other, "other")
    assert run_pass(by_hand, (weight * other).sum(), names) == []
    assert not by_hand.has_stepped()
    write(weight)
    assert by_hand.has_stepped()
    # What it had at the end of the pass before is told now that it is known.
    assert run_pass(by_hand, (weight * other).sum()) == [("parameter", "weight"), ("gradient", "weight")]
    assert trained(by_hand) == [(Category.PARAMETER, "weight"), (Category.GRADIENT, "weight")]


def test_what_is_not_written_to_is_not_trained_whatever_becomes_of_its_gradient() -> None:
    by_hand, weight, given = ByHand(torch), leaf(), leaf()
    run_pass(by_hand, (weight * given).sum())
    in_place(weight)
    weight.grad = given.grad = None
    run_pass(by_hand, (weight * given).sum(), [(weight, "weight")])
    assert [tensor is weight or tensor is weight.grad for _, _, tensor in by_hand.owned()] == [True, True]


def test_one_value_of_many_that_changes_is_a_write() -> None:
    by_hand, words = ByHand(torch), torch.zeros(5000, 16, requires_grad=True)
    run_pass(by_hand, words.sum())
    words.data[4321] += 1
    assert by_hand.has_stepped()


def test_on_the_cpu_a_dropped_gradient_alone_is_no_step() -> None:
    by_hand, weight = ByHand(torch), leaf()
    run_pass(by_hand, weight.sum())
    weight.grad = None
    assert not by_hand.has_stepped()


def test_where_writes_do_not_show_a_dropped_gradient_is_a_step_until_one_does() -> None:
    by_hand, weight = ByHand(torch), torch.ones(4, 4, device="meta", requires_grad=True)
    run_pass(by_hand, weight.sum())
    assert not by_hand.has_stepped()
    weight.grad = None
    assert by_hand.has_stepped()
    run_pass(by_hand, weight.sum())
    assert trained(by_hand) == []
    in_place(weight)
    run_pass(by_hand, weight.sum())
    assert len(trained(by_hand)) == 2
    weight.grad = None
    assert not by_hand.has_stepped()


def test_what_the_program_has_let_go_of_it_has_used_up() -> None:
    by_hand, first, second = ByHand(torch), leaf(), leaf()
    run_pass(by_hand, (first * second).sum())
    del first
    assert not by_hand.has_stepped()
    del second
    assert by_hand.has_stepped()


def test_gradients_that_add_up_are_no_step() -> None:
    by_hand, weight = ByHand(torch), leaf()
    for _ in range(3):
        run_pass(by_hand, weight.sum())
        assert not by_hand.has_stepped()


def test_what_modules_have_is_left_to_them() -> None:
    by_hand, weight = ByHand(torch), leaf()
    by_hand.pass_begins([weight], {id(weight)}, lambda _: {})
    assert not by_hand.is_possible


def test_what_became_a_part_of_a_graph_is_not_asked_for_its_gradient(recwarn: pytest.WarningsRecorder) -> None:
    by_hand, weight, other = ByHand(torch), torch.ones(4, 4), leaf()
    weight.requires_grad_()
    run_pass(by_hand, (weight * other).sum())
    weight.grad = None
    weight.requires_grad_(False).mul_(other)
    assert not weight.is_leaf
    run_pass(by_hand, (weight * other).sum())
    by_hand.has_stepped()
    assert list(recwarn) == []


def test_no_tensor_is_kept() -> None:
    by_hand, weight = ByHand(torch), leaf()
    run_pass(by_hand, weight.sum())
    reference = weakref.ref(weight)
    del weight
    gc.collect()
    assert reference() is None
    assert trained(by_hand) == []


def test_the_walk_ends_at_each_leaf_once() -> None:
    first, second = leaf(), leaf()
    found = list(SavedWalk(torch).leaves([(first * second).sum(), (first @ first).sum()]))
    assert sorted(map(id, found)) == sorted((id(first), id(second)))


class Net:
    """A class of a program, as far as this is one."""

    __slots__ = ("__dict__", "slot")

    def __init__(self) -> None:
        self.weights = {"first": leaf(), 2: leaf()}
        self.layers = [(leaf(), leaf()), Other()]
        self.slot = leaf()


class Other:
    def __init__(self) -> None:
        self.weight = leaf()


def called(frame: FrameType, net: Net, plain: torch.Tensor) -> dict[int, str]:
    """Return what the program calls its tensors, seen from a call of its."""
    wanted = [plain, *net.weights.values(), *net.layers[0], net.layers[1].weight, net.slot]  # type: ignore[misc, attr-defined]
    found = variable_names(torch, wanted, frame, ProgramModules())
    assert set(found) == set(map(id, wanted))
    return found


def test_a_tensor_is_called_what_the_program_may_write_for_it() -> None:
    net, plain = Net(), leaf()
    found = called(sys._getframe(), net, plain)
    assert {key: id(eval(name, {"net": net, "plain": plain})) for key, name in found.items()} == {
        key: key for key in found
    }
    assert sorted(found.values()) == [
        *("net.layers[0][0]", "net.layers[0][1]", "net.layers[1].weight", "net.slot"),
        *("net.weights['first']", "net.weights[2]", "plain"),
    ]


def closing_over_one() -> Callable[[], torch.Tensor]:
    hidden = leaf()
    return lambda: hidden


def test_what_no_short_way_leads_to_has_no_name() -> None:
    function = closing_over_one()
    assert variable_names(torch, [function()], sys._getframe(), ProgramModules()) == {}
