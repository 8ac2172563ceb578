"""Calls of modules, followed by what is woven into torch and by hooks: the same calls are seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from memtrace.hooks.torch_side import hook_numbers, module_calls
from memtrace.hooks.torch_side.module_calls import ModuleCalls


class Scopes:
    """Notes the calls that it is told of."""

    rests = takes_frames = False

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def before(self, module: Any, args: tuple[Any, ...]) -> None:
        """Note a call that begins."""
        self.seen.append((type(module).__name__, len(args)))

    def after(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        """Note one that has ended."""
        self.seen.append((type(module).__name__, len(args), type(output).__name__))


def called(function: Any, *args: Any) -> None:
    """Call a module that may fail."""
    try:
        function(*args)
    except RuntimeError:
        return


@pytest.mark.parametrize("by_hooks", [False, True])
def test_calls_are_followed_between_add_and_remove(by_hooks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if by_hooks:
        monkeypatch.setattr(module_calls, "weave", lambda *_args, **_settings: None)
    monkeypatch.setattr(module_calls, "has_compiled", lambda: False)
    scopes, net = Scopes(), torch.nn.Sequential(torch.nn.Linear(2, 2))
    calls = ModuleCalls(torch, scopes, lambda function, name: function)  # type: ignore[arg-type]
    assert calls.by_hooks is scopes.takes_frames is by_hooks
    for _ in range(2):
        calls.add()
        # Torch's number for the next hook, of whoever it is.
        next_number = torch.utils.hooks.RemovableHandle.next_id
        net(torch.ones(1, 2))
        called(net, torch.ones(1, 3))
        calls.pause()
        net(torch.ones(1, 2))
        calls.resume()
        calls.remove()
        net(torch.ones(1, 2))
        assert next_number == torch.utils.hooks.RemovableHandle.next_id
    begun = [("Sequential", 1), ("Linear", 1)]
    ended = [("Linear", 1, "Tensor"), ("Sequential", 1, "Tensor")]
    failed = [("Linear", 1, "NoneType"), ("Sequential", 1, "NoneType")]
    assert scopes.seen == 2 * [*begun, *ended, *begun, *failed]


def test_hooks_take_no_number_of_torch() -> None:
    net, own = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    first = net.register_forward_hook(lambda *_: None)
    called_with: list[int] = []
    ours = [
        hook_numbers.without_number(own.register_forward_hook(lambda *_: called_with.append(1), always_call=True)),
        hook_numbers.without_number(own.register_forward_hook(lambda *_: called_with.append(2))),
    ]
    second = net.register_forward_hook(lambda *_: None)
    assert second.id == first.id + 1
    own(torch.ones(1, 2))
    assert called_with == [1, 2]
    called(own, torch.ones(1, 3))
    assert called_with == [1, 2, 1]
    for handle in ours:
        handle.remove()
    own(torch.ones(1, 2))
    assert called_with == [1, 2, 1]
    assert not own._forward_hooks_always_called
