"""The watch over what tests leave behind fails where something is left, and knows every place that memtrace touches."""

from __future__ import annotations

import os
import signal
import sys
import threading
import timeit
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed.fsdp")

from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook  # noqa: E402
from torch.optim.optimizer import register_optimizer_step_post_hook  # noqa: E402

from memtrace.hooks.failure.unraisable import UnraisableHook  # noqa: E402
from memtrace.hooks.ownership.communication_buffers import Communication  # noqa: E402
from memtrace.hooks.torch_side.attach import Attachments  # noqa: E402
from memtrace.hooks.torch_side.guard import Guard  # noqa: E402
from memtrace.hooks.torch_side.weaving import weave  # noqa: E402
from tests.leftovers import left_behind, look, patched, watch  # noqa: E402

Undo = Callable[[], object]


def nothing(*_args: object, **_kwargs: object) -> None:
    """Stand for a hook."""


def start_profiler() -> Undo:
    profiler = torch.autograd.profiler.profile(use_kineto=False)
    profiler.__enter__()
    return lambda: profiler.__exit__(None, None, None)


def enter_mode() -> Undo:
    mode = torch.overrides.TorchFunctionMode()
    mode.__enter__()
    return lambda: mode.__exit__(None, None, None)


def replace_signal_handler() -> Undo:
    before = signal.signal(signal.SIGUSR1, nothing)
    return lambda: signal.signal(signal.SIGUSR1, before)


def set_attribute(owner: Any, name: str, value: Any) -> Undo:
    patch = pytest.MonkeyPatch()
    patch.setattr(owner, name, value)
    return patch.undo


def set_variable() -> Undo:
    patch = pytest.MonkeyPatch()
    patch.setitem(os.environ, "MEMTRACE_RECORD", "{}")
    return patch.undo


def set_profile_function() -> Undo:
    before = sys.getprofile()
    sys.setprofile(nothing)
    return lambda: sys.setprofile(before)


def weave_into_backward() -> Undo:
    woven = weave(torch.autograd.backward, nothing, nothing)
    assert woven is not None
    woven.put_in()
    return woven.take_out


def chain_unraisable_hook() -> Undo:
    hook = UnraisableHook()
    hook.install()
    return hook.uninstall


LEAVE: dict[str, Callable[[], Undo]] = {
    "torch.nn.modules.module._global_forward_hooks": lambda: register_module_forward_hook(nothing).remove,
    "torch.nn.modules.module._global_forward_pre_hooks": lambda: register_module_forward_pre_hook(nothing).remove,
    "torch.optim.optimizer._global_optimizer_post_hooks": lambda: register_optimizer_step_post_hook(nothing).remove,
    "profiler of torch": start_profiler,
    "function modes of torch": enter_mode,
    "sys.excepthook": lambda: set_attribute(sys, "excepthook", nothing),
    "threading.excepthook": lambda: set_attribute(threading, "excepthook", nothing),
    "sys.meta_path": lambda: set_attribute(
        sys, "meta_path", [*sys.meta_path, SimpleNamespace(find_spec=nothing, is_memtrace_watcher=True)]
    ),
    "environment variables": set_variable,
    "signal handlers": replace_signal_handler,
    "the code of torch.autograd.backward": weave_into_backward,
    "sys.unraisablehook": chain_unraisable_hook,
    "the profile function of Python": set_profile_function,
    **{
        f"{place}.{name}": lambda owner=owner, name=name: set_attribute(owner, name, nothing)
        for place, owner, name in patched()
        if hasattr(owner, name)
    },
}


@pytest.mark.parametrize("place", LEAVE)
def test_a_test_fails_that_leaves_something_behind(place: str) -> None:
    watching = watch()
    next(watching)
    undo = LEAVE[place]()
    try:
        with pytest.raises(pytest.fail.Exception, match=place.replace("[", "")):
            next(watching)
    finally:
        undo()


def test_a_test_passes_that_takes_everything_off_again() -> None:
    watching = watch()
    next(watching)
    for leave in LEAVE.values():
        leave()()
    with pytest.raises(StopIteration):
        next(watching)


def test_a_module_that_a_test_imports_is_no_leftover_but_a_hook_in_it_is() -> None:
    place = "torch.autograd.backward"
    after = look()
    before = {name: found for name, found in after.items() if "torch" not in name}
    assert left_behind(before, after) == []
    ours = Guard(nothing, bool).wrap(nothing, name="ours")
    assert left_behind(before, {**after, place: ours}) == [place]
    assert left_behind(before, {**after, "torch.nn.modules.module._global_forward_hooks": (nothing,)}) != []
    assert left_behind(before, {**after, "profiler of torch": True}) != []


class Recorded:
    """Notes what would be wrapped."""

    def __init__(self) -> None:
        self.places: list[tuple[Any, str]] = []

    def around(self, owner: Any, name: str, **_callbacks: object) -> None:
        """Note an attribute."""
        if hasattr(owner, name):
            self.places.append((owner, name))

    def replace(self, owner: Any, name: str, _replacement: object) -> None:
        """Note an attribute."""
        self.places.append((owner, name))

    def undo(self) -> None:
        """Nothing was wrapped."""


def test_every_call_that_memtrace_wraps_is_watched() -> None:
    replicas = MagicMock()
    loop = MagicMock()
    loop.communication = Communication(torch, emit=nothing, emit_scope=nothing, replicas=replicas, step=lambda: 0)
    yielding = MagicMock()
    yielding.history_module.return_value = torch.cuda.memory
    attachments: Any = Attachments(torch, Guard(nothing, bool), loop, yielding)
    attachments._patches = recorded = Recorded()
    attachments.add()
    loop.on_root()
    attachments.remove()
    watched = {(id(owner), name) for _, owner, name in patched()}
    assert len(recorded.places) > 10
    assert [(owner, name) for owner, name in recorded.places if (id(owner), name) not in watched] == []


def test_a_look_takes_microseconds() -> None:
    assert min(timeit.repeat(look, number=10, repeat=5)) / 10 < 1e-3


def test_the_memory_history_of_a_device_is_asked_for_only_once_it_is_initialised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked_too_early() -> bool:
        # On a machine without a driver this raises; with one, torch reads beyond a table and the process ends.
        raise AssertionError("asked before the device was initialised")

    monkeypatch.setattr(torch._C, "_cuda_isHistoryEnabled", asked_too_early, raising=False)
    assert look()["memory history of torch"] == 0
    monkeypatch.setattr(torch._C, "_cuda_isHistoryEnabled", lambda: True, raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert look()["memory history of torch"] is True
