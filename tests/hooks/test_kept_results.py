"""Modules that are computed again but for what some operators give: the same to the last bit, as the code written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.utils.checkpoint", reason="no checkpointing")

from torch import Tensor, nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from memtrace.hooks.changes.kept_results import can_be_kept, has_policies, name_of  # noqa: E402
from memtrace.report.answers.fix_code import code_of  # noqa: E402
from memtrace.schema.changes import Changes  # noqa: E402
from memtrace.schema.options import SurveyOptions  # noqa: E402
from tests.hooks.changed import changed, surveyed  # noqa: E402

pytestmark = pytest.mark.skipif(not has_policies(), reason="this torch has no selective checkpointing")
KEPT = Changes(recompute=("blocks.0", "blocks.1"), saved=("blocks.0:aten.addmm", "blocks.1:aten.mm"))


class Block(nn.Module):
    """Two products, a dropout between them, and a batch norm."""

    def __init__(self, *, writes: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8, bias=False)
        self.writes = writes

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(self.norm(x))
        hidden = hidden.relu_() if self.writes else hidden.relu()
        return x + self.down(torch.dropout(hidden, 0.5, True))


class Model(nn.Module):
    """Two blocks."""

    def __init__(self, *, writes: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(writes=writes) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Counted(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[name_of(func)] += 1
        return func(*args, **(kwargs or {}))


def train(change: Callable[[Model], object] = lambda _: None) -> tuple[list[str], list[Tensor], Counter[str]]:
    """Return losses, the state at the end, and how often operators of products ran."""
    torch.manual_seed(0)
    model = Model()
    change(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    with Counted() as counted:
        for _ in range(3):
            loss = model(torch.randn(4, 8)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item().hex())
    return losses, [one.clone() for one in model.state_dict().values()], counted.counts


def assert_same(one: Any, other: Any) -> None:
    assert one[0] == other[0]
    assert all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))


def test_what_is_kept_is_not_computed_again_and_all_else_is_to_the_last_bit() -> None:
    plain = train()
    with changed(torch, Changes(recompute=KEPT.recompute)) as warned:
        whole = train()
    with changed(torch, KEPT) as warned_too:
        kept = train()
    assert_same(whole, plain)
    assert_same(kept, plain)
    assert not warned
    assert not warned_too
    # Of two blocks, one keeps its addmm; what comes last in a block is not needed again in any case.
    assert whole[2]["aten.addmm"] - plain[2]["aten.addmm"] == 3 * 2
    assert kept[2]["aten.addmm"] - plain[2]["aten.addmm"] == 3 * 1
    assert kept[2]["aten.relu"] == whole[2]["aten.relu"] == 2 * plain[2]["aten.relu"]


@pytest.mark.parametrize(("saved", "again"), [((), 2), (KEPT.saved, 1)])
def test_the_code_to_write_does_the_same(saved: tuple[str, ...], again: int) -> None:
    def change(model: Model) -> None:
        exec(code_of(Changes(recompute=KEPT.recompute, saved=saved), has_statistics=True), {"model": model})

    plain, written = train(), train(change)
    assert_same(written, plain)
    assert written[2]["aten.addmm"] - plain[2]["aten.addmm"] == 3 * again


def test_copies_of_buffers_are_not_taken_for_results() -> None:
    class Cloning(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.clone()).sin().clone()

    def cloning(model: Model) -> None:
        for block in model.blocks:
            # It is copied before the first forward, and not again before the second: nothing writes it.
            block.norm.register_buffer("unused", torch.zeros(4, 8))
            block.__class__ = Cloning

    plain = train(cloning)
    with changed(torch, Changes(recompute=KEPT.recompute, saved=("blocks.0:aten.clone", "blocks.1:aten.clone"))):
        assert_same(train(cloning), plain)


def test_statistics_apart_the_code_needs_no_contextlib() -> None:
    code = code_of(KEPT, has_statistics=False)
    assert "contextlib" not in code
    assert "create_selective_checkpoint_contexts" in code


def survey_of(model: nn.Module, x: Tensor) -> dict[str, list[Any]]:
    """Return the operators that a survey noted, by name."""
    with surveyed(torch, options=SurveyOptions(folder="", operators=True)) as document:
        model(x).square().mean().backward()
    return {row[0]: row for row in document["operators"]}


@pytest.mark.parametrize("writes", [False, True])
def test_a_survey_says_which_results_can_stand_for_a_second_run(writes: bool) -> None:
    found = survey_of(Model(writes=writes), torch.randn(4, 8))
    assert {name: row[4] for name, row in found.items() if name in ("aten.addmm", "aten.mm")} == {
        # What a product gave and something else was written over is no more what it gave.
        "aten.addmm": not writes,
        "aten.mm": True,
    }
    assert not any(row[4] for name, row in found.items() if "dropout" in name or "batch_norm" in name)
    assert all(row[2] >= 0 for row in found.values())
    assert found["aten.mm"][3]


def test_attention_that_drops_is_computed_again() -> None:
    query = torch.randn(1, 2, 4, 8, requires_grad=True)
    seen: list[tuple[Any, ...]] = []

    class Seeing(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "_scaled_dot_product" in name_of(func):
                seen.append((func, args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    with Seeing():
        nn.functional.scaled_dot_product_attention(query, query, query)
    ((func, args, kwargs),) = seen
    at = [one.name for one in func._schema.arguments].index("dropout_p")
    dropping = (*args[:at], 0.1, *args[at + 1 :]) if at < len(args) else (*args, *[0.1] * (at + 1 - len(args)))
    assert can_be_kept(torch, func, args, kwargs)
    assert not can_be_kept(torch, func, dropping, kwargs)
    assert not can_be_kept(torch, torch.ops.aten.view.default, (), {})
    assert not can_be_kept(torch, torch.ops.aten.native_dropout.default, (), {})
