"""What is read of a module is what torch itself yields, without a call of anything that a program may override."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from memtrace.hooks.ownership.module_tree import buffers_in, modules_in, parameters_in


def tied() -> nn.Module:
    """Return modules with one that is held twice, a parameter that is tied, and slots that are empty."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    root = nn.Sequential(nn.ModuleDict({"a": first, "b": nn.BatchNorm1d(4)}), second, first, nn.Identity())
    root.register_module("empty", None)
    root.register_buffer("nothing", None)
    root.register_parameter("none", None)
    return root


def same(ours: Iterator[tuple[str, Any]], theirs: Iterator[tuple[str, Any]]) -> bool:
    return [(name, id(one)) for name, one in ours] == [(name, id(one)) for name, one in theirs]


@pytest.mark.parametrize(
    "make",
    [
        tied,
        lambda: nn.TransformerDecoderLayer(8, 2, 8),
        lambda: nn.LSTM(4, 4, 2),
        lambda: torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))),
        lambda: torch.compile(nn.Sequential(nn.Linear(2, 2)), backend="eager"),
        lambda: nn.LazyLinear(4),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_tables_hold_what_torch_yields(make: Callable[[], Any]) -> None:
    root = make()
    assert [name for name, _ in modules_in(root)] == [name for name, _ in root.named_modules()]
    assert [name for name, _ in parameters_in(root)] == [name for name, _ in root.named_parameters()]
    assert [name for name, _ in buffers_in(root)] == [name for name, _ in root.named_buffers()]
    if not isinstance(root, torch.jit.ScriptModule):  # whose tables make new objects
        assert same(modules_in(root), root.named_modules())
        assert same(parameters_in(root), root.named_parameters())


def test_nothing_that_a_program_overrides_is_called() -> None:
    class Loud(nn.Linear):
        def named_modules(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError

        named_parameters = parameters = named_buffers = buffers = modules = children = named_modules

    root = nn.Sequential(Loud(2, 2))
    assert [name for name, _ in parameters_in(root)] == ["0.weight", "0.bias"]
    assert list(buffers_in(root)) == []
