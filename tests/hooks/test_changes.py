"""Changed programs: what is computed again comes out as it was, to the last bit, or is refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from memtrace.hooks.changes.change import Changed  # noqa: E402
from memtrace.hooks.torch_side.guard import Guard  # noqa: E402
from memtrace.schema.changes import Changes  # noqa: E402

Apply = Callable[[Changes], list[str]]


@pytest.fixture
def apply() -> Iterator[Apply]:
    """Change this process; the warnings are returned. Everything is taken off again."""
    put: list[Changed] = []

    def change(changes: Changes) -> list[str]:
        warned: list[str] = []

        def warn(_slug: str, message: str) -> None:
            warned.append(message)

        changed = Changed(torch, changes, None, Guard(warn, torch.compiler.is_compiling), warn)
        changed.install()
        put.append(changed)
        return warned

    yield change
    while put:
        put.pop().finish()


class Block(nn.Module):
    """Statistics, random numbers of torch and of Python, keywords, and a result in a dictionary."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.runs = [0]

    def forward(self, x: Tensor, *, scale: float) -> dict[str, Any]:
        self.runs[0] += 1
        hidden = torch.dropout(torch.relu(self.up(self.norm(x))), 0.5, True)
        if random.random() < 0.5:
            hidden = hidden * 0.5
        return {"hidden": (x + scale * self.down(hidden), None), "scale": scale}


class Model(nn.Module):
    """Blocks, of which the last is called twice."""

    def __init__(self, blocks: int = 3, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.blocks, self.blocks[-1]):
            x = block(x, scale=0.5)["hidden"][0]
        return x


def train(steps: int = 3) -> tuple[list[float], dict[str, Tensor], list[int]]:
    """Return the losses, the state at the end, and how often each block ran."""
    torch.manual_seed(0)
    random.seed(0)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = model(torch.randn(16, 8)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, model.state_dict(), [block.runs[0] for block in model.blocks]


def assert_same(one: Any, other: Any) -> None:
    assert one[0] == other[0]
    assert all(torch.equal(one[1][name], tensor) for name, tensor in other[1].items())


def test_recomputed_modules_train_as_they_did_to_the_last_bit(apply: Apply) -> None:
    plain = train()
    warned = apply(Changes(recompute=("blocks.0", "blocks.2")))
    changed = train()
    assert_same(changed, plain)
    assert warned == []
    # Three steps: once in forward and once in backward, and the last block twice as often.
    assert (plain[2], changed[2]) == ([3, 3, 6], [6, 3, 12])


def test_offloaded_modules_train_as_they_did(apply: Apply) -> None:
    plain = train()
    apply(Changes(offload=("blocks.1",)))
    assert_same(train(), plain)


def test_everything_is_taken_off_again(apply: Apply) -> None:
    forward, call = Block.forward, nn.Module.__call__
    zero_grad = torch.optim.Optimizer.zero_grad
    changed = Changed(torch, Changes(recompute=("blocks.0",), set_to_none=True), None, _guard(), lambda *_: None)
    changed.install()
    train(1)
    assert Block.forward is not forward
    changed.finish()
    assert (Block.forward, nn.Module.__call__, torch.optim.Optimizer.zero_grad) == (forward, call, zero_grad)


def _guard() -> Guard:
    return Guard(lambda *_: None, torch.compiler.is_compiling)


def test_a_plan_of_another_program_is_told_of() -> None:
    warned: list[str] = []
    changed = Changed(
        torch, Changes(recompute=("layers.0", "blocks.0")), None, _guard(), lambda _, message: warned.append(message)
    )
    changed.install()
    train(1)
    changed.tell_missing()
    changed.finish()
    assert warned == ["modules of the plan that were never run: 1, layers.0 first"]


def test_evaluation_is_not_changed(apply: Apply) -> None:
    apply(Changes(recompute=("blocks.0",)))
    model = Model()
    with torch.no_grad():
        out = model(torch.randn(16, 8))
    assert not out.requires_grad
    assert model.blocks[0].runs == [1]


def test_a_copy_of_a_changed_module_is_its_own(apply: Apply) -> None:
    import copy

    apply(Changes(recompute=("blocks.0",)))
    model = Model()
    model(torch.randn(16, 8)).sum().backward()
    other = copy.deepcopy(model)
    before = [block.runs[0] for block in model.blocks]
    other(torch.randn(16, 8)).sum().backward()
    assert [block.runs[0] for block in model.blocks] == before


class Wrapper(nn.Module):
    """Calls another module and writes to what that was given, where it is told to."""

    def __init__(self, inner: nn.Module, *, writes: bool = False) -> None:
        super().__init__()
        self.inner = inner
        self.writes = writes

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2
        out = self.inner(x)
        if self.writes:
            x += 1
        return out + x


class Adder(nn.Module):
    """Backward needs nothing of what it is given, so that writing to it is allowed in the plain program."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1).exp()


def test_what_was_given_and_is_written_to_before_backward_is_refused(apply: Apply) -> None:
    warned = apply(Changes(recompute=("inner",)))
    loss = Wrapper(Adder(), writes=True)(torch.randn(4, requires_grad=True)).sum()
    # Newer torches keep an eye on the arguments of a checkpoint themselves.
    with pytest.raises(RuntimeError, match=r"written to before backward|modified by an inplace operation"):
        loss.backward()
    assert len(warned) <= 1


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda model: setattr(model.inner, "forward", model.inner.forward), "replaced by another function"),
        (lambda model: setattr(model, "inner", torch.jit.script(nn.Linear(4, 4))), "scripted"),
        (
            lambda model: setattr(model, "inner", _hooked(nn.Sequential(nn.Linear(4, 4)))),
            "forward hooks of the program",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_modules_that_cannot_be_run_again_are_left_as_they_are(apply: Apply, break_it: Any, why: str) -> None:
    warned = apply(Changes(recompute=("inner",)))
    model = Wrapper(nn.Linear(4, 4))
    break_it(model)
    model(torch.randn(2, 4)).sum().backward()
    assert len(warned) == 1
    assert why in warned[0]


def _hooked(module: nn.Sequential) -> nn.Module:
    module[0].register_forward_hook(lambda *_: None)
    return module


def test_gradients_are_freed_where_the_program_fills_them(apply: Apply) -> None:
    apply(Changes(set_to_none=True))
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(2, 4)).sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert model.weight.grad is None


def test_optimizers_work_as_they_are_told_but_for_what_the_program_chose(apply: Apply) -> None:
    apply(Changes(optimizer="fused"))
    weights = [nn.Parameter(torch.randn(4))]
    plain = torch.optim.AdamW(weights)
    chosen = torch.optim.AdamW(weights, foreach=True)
    # On the host there is no kernel to fuse into that would save anything.
    assert (plain.param_groups[0]["foreach"], plain.param_groups[0]["fused"]) == (False, None)
    assert chosen.param_groups[0]["foreach"] is True


def test_autocast_is_put_around_the_outermost_forward(apply: Apply) -> None:
    apply(Changes(autocast="bfloat16"))
    assert Wrapper(nn.Linear(4, 4))(torch.randn(2, 4)).dtype is torch.float32
    assert nn.Sequential(nn.Linear(4, 4))(torch.randn(2, 4)).dtype is torch.bfloat16


def test_the_program_may_profile_its_modules(apply: Apply) -> None:
    apply(Changes(recompute=("0",)))
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4))
    with torch.profiler.profile(with_stack=True, with_modules=True) as profile:
        model(torch.randn(2, 4)).sum().backward()
    assert any("linear" in one.key for one in profile.key_averages())
