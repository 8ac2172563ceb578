"""What an optimizer keeps and what its step makes on the way, from its class and options: for steps not yet recorded.

In: parameters that have a gradient (shapes, element sizes), the rows of the `optimizers` table. Out: bytes, or `None`
for a class that is not known. The rules are read off `torch/optim/*.py` of torch 2.13: the tensors that `_init_group`
makes, and those that `_single_tensor_*` (a loop over parameters) and `_multi_tensor_*` (`foreach`) hold at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SCALAR_BYTES = 4


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that has a gradient."""

    shape: tuple[int, ...]
    item_bytes: int
    """Bytes of an element."""

    @property
    def num_bytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.item_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One parameter group of an optimizer."""

    class_name: str
    options: Mapping[str, Any]
    num_parameters: int
    """Elements in the group."""

    def number(self, name: str) -> float:
        """Return an option as a number; 0 where it is absent or is none (a learning rate may be a tensor)."""
        value = self.options.get(name)
        return float(value) if isinstance(value, (int, float)) else 0.0

    def implementation(self, *, is_cpu: bool) -> str:
        """Return `fused`, `foreach` or `for-loop`: what torch runs for these options.

        Without a choice of the user's, torch takes `foreach` on an accelerator and the loop on the CPU
        (`_default_to_fused_or_foreach`); Adafactor always takes the loop.

        >>> Group(class_name="AdamW", options={"foreach": None}, num_parameters=1).implementation(is_cpu=False)
        'foreach'
        """
        if self.options.get("fused"):
            return "fused"
        if self.options.get("foreach") is not None:
            return "foreach" if self.options["foreach"] else "for-loop"
        by_choice = is_cpu or self.class_name == "Adafactor" or bool(self.options.get("differentiable"))
        return "for-loop" if by_choice else "foreach"


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one class of optimizer holds, counted in tensors as large as the parameter."""

    states: int
    scalars: int
    """State tensors with one element, for each parameter."""
    loop: int
    """Tensors that one turn of the loop makes and holds at once, without weight decay."""
    carried: int
    """Tensors that stay in a variable until the next turn has made its own."""
    foreach: int
    """Lists of tensors that the `foreach` form holds at once, without weight decay."""


_RULES = {
    "Adam": _Rule(states=2, scalars=1, loop=2, carried=1, foreach=1),
    "AdamW": _Rule(states=2, scalars=1, loop=2, carried=1, foreach=1),
    "NAdam": _Rule(states=2, scalars=2, loop=2, carried=1, foreach=1),
    "RAdam": _Rule(states=2, scalars=1, loop=2, carried=1, foreach=2),
    "SGD": _Rule(states=0, scalars=0, loop=0, carried=0, foreach=0),
    "Adagrad": _Rule(states=1, scalars=1, loop=1, carried=1, foreach=2),
    "RMSprop": _Rule(states=1, scalars=1, loop=1, carried=1, foreach=1),
    "Adadelta": _Rule(states=2, scalars=1, loop=2, carried=2, foreach=2),
    "Adamax": _Rule(states=2, scalars=1, loop=2, carried=1, foreach=1),
    "Rprop": _Rule(states=2, scalars=1, loop=3, carried=2, foreach=2),
    "ASGD": _Rule(states=1, scalars=3, loop=1, carried=0, foreach=1),
    "Adafactor": _Rule(states=0, scalars=1, loop=1, carried=1, foreach=1),  # see _factored, _adafactor_step
    "Muon": _Rule(states=1, scalars=0, loop=2, carried=1, foreach=2),
    "Lion": _Rule(states=1, scalars=0, loop=2, carried=1, foreach=1),
}

_DECOUPLED = {"AdamW", "Adafactor", "Muon", "Lion"}
"""Classes whose weight decay changes the parameter in place instead of making a new gradient."""


def state_bytes(groups: Sequence[Group], parameters: Sequence[Parameter], *, is_cpu: bool) -> int | None:
    """Return the bytes of the states that these optimizers make for these parameters, scalars included.

    Scalars count where they are on the device: on the CPU, or with `fused` or `capturable`. With several groups of
    different rules the parameters of each are not known apart, so their elements are.

    >>> adam = Group(class_name="Adam", options={}, num_parameters=6)
    >>> state_bytes([adam], [Parameter((2, 3), 4)], is_cpu=True)
    52
    >>> factored = Group(class_name="Adafactor", options={}, num_parameters=6)
    >>> state_bytes([factored], [Parameter((2, 3), 4)], is_cpu=False)
    20
    """
    if not groups or any(group.class_name not in _RULES for group in groups):
        return None
    needs = [sum(_states_of(group, one, is_cpu=is_cpu) for one in parameters) for group in groups]
    return round(sum(need * share for need, share in zip(needs, _shares(groups), strict=True)))


def step_bytes(groups: Sequence[Group], parameters: Sequence[Parameter], *, is_cpu: bool) -> int | None:
    """Return the bytes that the steps of these optimizers hold at once beside gradients and states.

    `foreach` works on all parameters of a group at a time (pytorch#97712), the loop on one, with what the turn before
    left in a variable; `fused` makes nothing.

    >>> adam = Group(class_name="Adam", options={"foreach": True}, num_parameters=6)
    >>> step_bytes([adam], [Parameter((2, 3), 4)], is_cpu=True)
    24
    >>> loop = Group(class_name="Adam", options={"foreach": False}, num_parameters=12)
    >>> step_bytes([loop], [Parameter((2, 3), 4), Parameter((6,), 4)], is_cpu=True)
    72
    """
    if not groups or any(group.class_name not in _RULES for group in groups):
        return None
    needs = [_step_of(group, parameters, is_cpu=is_cpu) for group in groups]
    whole = [group.implementation(is_cpu=is_cpu) == "foreach" for group in groups]
    return max(
        round(need * share) if is_whole else need
        for need, share, is_whole in zip(needs, _shares(groups), whole, strict=True)
    )


def _shares(groups: Sequence[Group]) -> list[float]:
    """Return the share of the elements that each group has."""
    total = sum(group.num_parameters for group in groups)
    return [group.num_parameters / total if total > 0 else 1 / len(groups) for group in groups]


def _states_of(group: Group, parameter: Parameter, *, is_cpu: bool) -> int:
    rule, name = _RULES[group.class_name], group.class_name
    count = rule.states
    if name in ("Adam", "AdamW"):
        count += bool(group.options.get("amsgrad"))
    if name == "SGD":
        count += group.number("momentum") != 0
    if name == "RMSprop":
        count += (group.number("momentum") > 0) + bool(group.options.get("centered"))
    on_device = is_cpu or group.options.get("capturable") or group.options.get("fused")
    scalars = rule.scalars * _SCALAR_BYTES if on_device else 0
    if name == "Adafactor":
        return _factored(parameter) + scalars
    return count * parameter.num_bytes + scalars


def _factored(parameter: Parameter) -> int:
    """Return the bytes of Adafactor's row and column variances; a vector has a whole one."""
    if len(parameter.shape) < 2:
        return parameter.num_bytes
    *_, rows, columns = parameter.shape
    leading = math.prod(parameter.shape[:-2])
    return leading * (rows + columns) * parameter.item_bytes


def _step_of(group: Group, parameters: Sequence[Parameter], *, is_cpu: bool) -> int:
    """Return what the step of one group holds at once if all parameters were its own."""
    rule, implementation = _RULES[group.class_name], group.implementation(is_cpu=is_cpu)
    if implementation == "fused" or not parameters:
        return 0
    if group.class_name == "Adafactor":
        return _adafactor_step(parameters, foreach=implementation == "foreach")
    new_gradients = _new_gradients(group)
    if implementation == "foreach":
        # Adam deletes the decayed gradients before it takes roots; Adagrad reuses them for the numerator.
        reuses = group.class_name in ("Adam", "AdamW", "Adagrad")
        count = max(rule.foreach, new_gradients) if reuses else rule.foreach + new_gradients
        return count * sum(one.num_bytes for one in parameters)
    sizes = [one.num_bytes for one in parameters]
    before = [0, *sizes[:-1]]
    in_turn = rule.loop + new_gradients + _nesterov(group)
    turns = list(zip(sizes, before, strict=True))
    held = max(in_turn * size + rule.carried * last for size, last in turns)
    if group.options.get("maximize"):
        # A negative gradient is made while its variable still holds that of the turn before.
        held = max(held, *(size + (rule.carried + 1) * last for size, last in turns))
    return held


def _adafactor_step(parameters: Sequence[Parameter], *, foreach: bool) -> int:
    """Return what Adafactor's step holds: estimates as large as the parameters, and the means they come from.

    For the small kernels of convolutions the means of rows and columns are a good part of the parameter.
    """
    sizes = [one.num_bytes for one in parameters]
    matrices = [one for one in parameters if len(one.shape) > 1]
    corners = [math.prod(one.shape[:-2]) * one.item_bytes for one in matrices]
    if foreach:
        of_matrices = sum(one.num_bytes for one in matrices)
        # Vectors have their squares deleted before the estimates are made.
        return max(of_matrices + sum(corners), sum(sizes) - of_matrices)
    largest, before = 0, 0
    means, corner = 0, 0
    for one, size in zip(parameters, sizes, strict=True):
        if len(one.shape) > 1:
            # Two vectors; those of the last matrix stay in their variables through the turns of vectors.
            means, corner = _factored(one), math.prod(one.shape[:-2]) * one.item_bytes
            largest = max(largest, means + size + max(before, corner))
        else:
            largest = max(largest, means + 2 * size + before)
        before = size
    return largest


def _new_gradients(group: Group) -> int:
    """Return how many gradients a step makes anew: one for a weight decay that is added to it, or for a negative."""
    decays = group.number("weight_decay") != 0 and group.class_name not in _DECOUPLED
    decays = decays and not group.options.get("decoupled_weight_decay")
    return int(bool(decays or group.options.get("maximize")))


def _nesterov(group: Group) -> int:
    return int(group.class_name == "SGD" and bool(group.options.get("nesterov")))
