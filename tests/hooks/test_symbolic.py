"""Whether a program runs only to be written down is told whatever writes it down, and of no other program."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from memtrace.hooks.torch_side.symbolic import symbolic_check  # noqa: E402

Ask = Callable[[Any], Any]
"""Asks whether a run is symbolic, notes the answer, and returns something of what it is given."""


class OwnMode(TorchDispatchMode):
    """A mode of the program's that changes nothing."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function."""
        return function(*args, **(kwargs or {}))


class OwnFunctions(TorchFunctionMode):
    """Another."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function."""
        return function(*args, **(kwargs or {}))


def traced(ask: Ask) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(ask, torch.ones(1), check_trace=False)


def in_a_fake_mode(ask: Ask) -> None:
    with FakeTensorMode():
        ask(torch.ones(1))


def in_a_fake_mode_within_an_own_one(ask: Ask) -> None:
    with OwnMode(), FakeTensorMode():
        ask(torch.ones(1))


def in_an_own_mode_within_a_fake_one(ask: Ask) -> None:
    with FakeTensorMode(), OwnMode():
        ask(torch.ones(1))


def of_proxies(ask: Ask) -> None:
    make_fx(ask)(torch.ones(1))


def of_symbols(ask: Ask) -> None:
    torch.fx.symbolic_trace(ask)


def vectorized(ask: Ask) -> None:
    torch.func.vmap(ask)(torch.ones(2))


def differentiated(ask: Ask) -> None:
    torch.func.grad(lambda value: ask(value).sum())(torch.ones(2))


def functionalized(ask: Ask) -> None:
    torch.func.functionalize(ask)(torch.ones(2))


def bare(ask: Ask) -> None:
    ask(torch.ones(1))


def in_an_own_mode(ask: Ask) -> None:
    with OwnMode(), OwnFunctions():
        ask(torch.ones(1))


def after_each_of_the_others(ask: Ask) -> None:
    for run in SYMBOLIC:
        run(lambda value: value * 2)
    ask(torch.ones(1))


SYMBOLIC = (
    *(traced, in_a_fake_mode, in_a_fake_mode_within_an_own_one, in_an_own_mode_within_a_fake_one, of_proxies),
    *(of_symbols, vectorized, differentiated, functionalized),
)
OTHERS = (bare, in_an_own_mode, after_each_of_the_others)


@pytest.mark.parametrize("run", [*SYMBOLIC, *OTHERS], ids=lambda one: one.__name__)
def test_a_run_that_is_written_down_is_told_from_any_other(run: Callable[[Ask], None]) -> None:
    found: list[bool] = []
    is_symbolic = symbolic_check(torch)

    def ask(value: Any) -> Any:
        found.append(is_symbolic())
        return value * 2

    run(ask)
    assert found
    assert set(found) == {run in SYMBOLIC}


@pytest.mark.parametrize(
    "name", ["_len_torch_dispatch_stack", "_get_tracing_state", "_functorch", "_get_dispatch_mode"]
)
def test_a_torch_that_cannot_be_asked_one_thing_is_asked_the_others(name: str) -> None:
    missing = SimpleNamespace(**{key: value for key, value in vars(torch._C).items() if key != name})
    is_symbolic = symbolic_check(SimpleNamespace(_C=missing, compiler=SimpleNamespace()))
    assert not is_symbolic()
    with FakeTensorMode():
        assert is_symbolic() is (name != "_get_dispatch_mode")
