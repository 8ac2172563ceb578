"""Adam and AdamW with states in 8 bits: which take them, and what becomes of the others."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from memtrace.hooks.changes.stepping.small_states import reason_against_small_states  # noqa: E402
from memtrace.report.answers.fix_code import code_of  # noqa: E402
from memtrace.schema.changes import STATES, Changes  # noqa: E402
from tests.hooks.changed import changed  # noqa: E402


class Small(torch.optim.Optimizer):  # type: ignore[misc]
    """Stands for the optimizer of bitsandbytes."""

    def __init__(self, params: Any, lr: float, betas: Any, eps: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def step(self, closure: Any = None) -> None:
        """Make no step."""


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    package, optim = types.ModuleType("bitsandbytes"), types.ModuleType("bitsandbytes.optim")
    optim.AdamW8bit = Small  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)


@pytest.mark.usefixtures("package")
def test_an_optimizer_is_made_with_what_the_program_gave_it() -> None:
    model = nn.Linear(4, 4)
    with changed(torch, Changes(small_states=True)) as warned:
        optimizer: Any = torch.optim.AdamW(model.parameters(), 0.25, weight_decay=0.5, fused=False)
        groups = [{"params": (one for one in [model.weight])}, {"params": model.bias, "lr": 0.125}]
        grouped: Any = torch.optim.Adam(groups, eps=1e-3)
    assert type(optimizer) is type(grouped) is Small
    assert [optimizer.defaults[name] for name in ("lr", "weight_decay")] == [0.25, 0.5]
    assert optimizer.param_groups[0]["params"] == list(model.parameters())
    assert [(one["lr"], one["eps"], one["params"]) for one in grouped.param_groups] == [
        (1e-3, 1e-3, [model.weight]),
        (0.125, 1e-3, [model.bias]),
    ]
    assert not warned
    # Taken off again.
    assert type(torch.optim.AdamW(model.parameters())) is torch.optim.AdamW


class Own(torch.optim.AdamW):
    """The program's own kind of AdamW."""


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        (torch.optim.AdamW, {"amsgrad": True}, "amsgrad"),
        (torch.optim.AdamW, {"maximize": True}, "maximize"),
        (torch.optim.AdamW, {"lr": torch.tensor(0.1)}, "learning rate"),
        (torch.optim.Adam, {"weight_decay": 0.1}, "weight decay"),
        (torch.optim.SGD, {"lr": 0.1}, "no counterpart"),
        (Own, {}, "no counterpart"),
    ],
)
def test_one_that_would_step_by_another_rule_stays(kind: Any, options: dict[str, Any], why: str) -> None:
    model = nn.Linear(4, 4)
    plain = kind(model.parameters(), **options)
    assert why in str(reason_against_small_states(torch, plain))
    with changed(torch, Changes(small_states=True)) as warned:
        assert type(kind(model.parameters(), **options)) is kind
    # What is not asked for by its name is not touched, and so not told of.
    assert all(why in one and STATES in one for one in warned)
    assert bool(warned) is (kind in (torch.optim.Adam, torch.optim.AdamW))


def test_without_the_package_the_optimizer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    model = nn.Linear(4, 4)
    assert reason_against_small_states(torch, torch.optim.AdamW(model.parameters())) is None
    with changed(torch, Changes(small_states=True)) as warned:
        assert type(torch.optim.AdamW(model.parameters())) is torch.optim.AdamW
    assert ["bitsandbytes" in one for one in warned] == [True]


def test_the_package_itself_trains_near_to_torch() -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

    def train() -> tuple[list[float], set[Any]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(5):
            x = torch.randn(16, 64)
            loss = (model(x) - x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        states = [value for state in optimizer.state.values() for value in state.values()]
        return losses, {one.dtype for one in states if torch.is_tensor(one)}

    plain, _ = train()
    with changed(torch, Changes(small_states=True)):
        small, types_of_states = train()
    assert torch.uint8 in types_of_states
    assert small == pytest.approx(plain, rel=0.01)
    assert small != plain


def test_the_code_to_write_names_the_package() -> None:
    assert "bitsandbytes.optim.AdamW8bit(" in code_of(Changes(small_states=True))
