"""A step in backward: equal to the step after it to the last bit, and refused where it could not be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from memtrace.hooks.changes.stepping.gradient_use import ELEMENTWISE  # noqa: E402
from memtrace.schema.changes import STEP, Changes  # noqa: E402
from tests.hooks.changed import changed, surveyed  # noqa: E402

IN_BACKWARD = Changes(step_in_backward=True)


class Tied(nn.Module):
    """A weight that is used twice, and a parameter that every other forward does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.extra = nn.Embedding(10, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.table.weight
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.inner(self.table(x))
        return self.head(x + self.extra(x) if self.calls % 2 else x)


def train(make: Callable[[Any], Any], *, steps: int = 4, resumes: bool = False) -> tuple[list[float], Any, Any]:
    """Return the losses, the parameters and the states of an optimizer under a schedule."""
    torch.manual_seed(0)
    model = Tied()
    optimizer = make(model.parameters())
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=steps)
    losses = []
    for step in range(steps):
        loss = model(torch.arange(10)).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if resumes and step == 1:
            # A loaded state has new groups.
            optimizer.load_state_dict(optimizer.state_dict())
    return losses, model.state_dict(), optimizer.state_dict()


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    else:
        assert one == other


@pytest.mark.parametrize("name", sorted(ELEMENTWISE & set(dir(torch.optim))))
def test_every_optimizer_makes_the_same_steps_and_states(name: str) -> None:
    def make(parameters: Any) -> Any:
        momentum = {"momentum": 0.9} if name == "SGD" else {}
        return getattr(torch.optim, name)(parameters, lr=0.05, **momentum)

    plain = train(make, resumes=True)
    with changed(torch, IN_BACKWARD) as warned:
        assert_equal(train(make, resumes=True), plain)
    assert warned == []
    with surveyed(torch) as seen:
        train(make)
    assert seen["facts"]["against_step_in_backward"] == ""


def test_gradients_are_gone_before_the_step() -> None:
    with changed(torch, IN_BACKWARD):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        before = [one.detach().clone() for one in model.parameters()]
        torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.randn(2, 4)).sum().backward()
        # Nobody holds the optimizer any more, and so nothing steps.
        assert_equal([one.detach() for one in model.parameters()], before)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.zero_grad()
        model(torch.randn(2, 4)).sum().backward()
        assert all(one.grad is None for one in model.parameters())
        assert not torch.equal(next(model.parameters()), before[0])


def clips(model: Any, optimizer: Any) -> None:
    loss(model).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def prints(model: Any, optimizer: Any) -> None:
    loss(model).backward()
    optimizer.step()
    assert model.weight.grad.norm() >= 0
    optimizer.zero_grad()


def accumulates(model: Any, optimizer: Any) -> None:
    loss(model).backward()
    loss(model).backward()
    optimizer.step()
    optimizer.zero_grad()


def never_clears(model: Any, optimizer: Any) -> None:
    loss(model).backward()
    optimizer.step()


def skips(model: Any, optimizer: Any) -> None:
    loss(model).backward()
    optimizer.zero_grad()
    loss(model).backward()
    optimizer.step()


def sets_rate(model: Any, optimizer: Any) -> None:
    loss(model).backward()
    optimizer.param_groups[0]["lr"] *= 0.9
    optimizer.step()
    optimizer.zero_grad()


def closes(model: Any, optimizer: Any) -> None:
    def closure() -> Any:
        optimizer.zero_grad()
        found = loss(model)
        found.backward()
        return found

    optimizer.step(closure)


def replaces(model: Any, optimizer: Any) -> None:
    loss(model).backward()
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()
    optimizer.zero_grad()


def scales(model: Any, optimizer: Any) -> None:
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss(model)).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def loss(model: Any) -> Any:
    return model(torch.ones(2, 4)).square().mean()


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (clips, "looks at gradients itself, as to clip, scale or print them (clip_grad.py:"),
        (prints, "looks at gradients"),
        (accumulates, "more than one backward"),
        (never_clears, "added to those"),
        (skips, "cleared between backward and step"),
        (sets_rate, "options of the optimizer"),
        (closes, "closure"),
        (replaces, "sets gradients itself (test_step_in_backward.py:"),
        (scales, "looks at gradients"),
    ],
)
def test_a_loop_that_needs_its_gradients_is_told_apart(step: Callable[[Any, Any], None], why: str) -> None:
    with surveyed(torch) as seen:
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            step(model, optimizer)
    assert why in seen["facts"]["against_step_in_backward"]
    assert seen["warned"] == []


def test_several_optimizers_and_unknown_ones_are_told_apart() -> None:
    class Own(torch.optim.SGD):
        """Anything may be in its step."""

    with surveyed(torch) as several:
        models = [nn.Linear(4, 4), nn.Linear(4, 4)]
        optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in models]
        loss(nn.Sequential(*models)).backward()
        for one in optimizers:
            one.step()
    with surveyed(torch) as own:
        model = nn.Linear(4, 4)
        optimizer = Own(model.parameters(), lr=0.1)
        loss(model).backward()
        optimizer.step()
    assert "optimizers" in several["facts"]["against_step_in_backward"]
    assert "Own" in own["facts"]["against_step_in_backward"]


@pytest.mark.parametrize("step", [accumulates, sets_rate])
def test_a_program_that_would_train_otherwise_ends_and_says_why(step: Callable[[Any, Any], None]) -> None:
    with surveyed(torch, IN_BACKWARD) as seen:
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(RuntimeError, match="as the plan of memtrace fix asks"):
            step(model, optimizer)
    assert seen["failed"].keys() == {STEP}


def test_a_program_that_exchanges_gradients_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with surveyed(torch) as seen:
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss(model).backward()
        optimizer.step()
    assert "ranks exchange" in seen["facts"]["against_step_in_backward"]
    with changed(torch, IN_BACKWARD):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(RuntimeError, match="ranks exchange"):
            loss(model).backward()


def test_zeros_that_a_plain_step_would_go_on_by_are_not_left_out() -> None:
    with changed(torch, IN_BACKWARD):
        model = Tied()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        model(torch.arange(10)).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        model(torch.arange(10)).sum().backward()
        with pytest.raises(RuntimeError, match="zeros"):
            optimizer.step()


def test_everything_is_taken_off_again() -> None:
    grad, add = torch.Tensor.grad, torch.optim.Optimizer.add_param_group
    with surveyed(torch):
        assert torch.Tensor.grad is not grad
    with changed(torch, IN_BACKWARD):
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert (torch.Tensor.grad, torch.optim.Optimizer.add_param_group) == (grad, add)
    loss(model).backward()
    assert model.weight.grad is not None
    optimizer.step()


def made_by(outer: Any) -> Any:
    return torch.optim.Adam(outer.parameters())


@pytest.mark.parametrize(("wraps", "named"), [(False, "outer"), (True, 'outer.get_submodule("0.1")')])
def test_the_survey_knows_where_the_optimizer_is_made_and_what_holds_the_model(wraps: bool, named: str) -> None:
    with surveyed(torch) as seen:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        holder = nn.Sequential(nn.Sequential(nn.Linear(4, 4), model)) if wraps else model
        optimizer = made_by(holder)
        loss(model).backward()
        optimizer.zero_grad(set_to_none=False)
    (made,), (filled,) = seen["facts"]["places"]["optimizers"], seen["facts"]["places"]["fills"]
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert made[0] == filled[0] == __file__
    assert "torch.optim.Adam(outer" in lines[made[1] - 1]
    assert "set_to_none=False" in lines[filled[1] - 1]
    assert made[2:] == ["Adam", named]
