"""States of optimizers that ranks share: when that trains the same, and what each rank then keeps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("torch is built without ranks", allow_module_level=True)
fake_pg = pytest.importorskip("torch.testing._internal.distributed.fake_pg", reason="this torch has no ranks made up")

from torch import nn  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from memtrace.hooks.changes.stepping.sharded_states import (  # noqa: E402
    reason_against_sharded_states,
    replicated_in,
    share_of,
)
from memtrace.schema.changes import STATES, Changes  # noqa: E402
from tests.hooks.changed import changed, surveyed  # noqa: E402

RANKS = 4


def backward(made: nn.Module) -> None:
    """Make gradients; ranks that are made up have none to exchange."""
    with made.no_sync() if isinstance(made, DistributedDataParallel) else nullcontext():
        made(torch.randn(2, 16)).sum().backward()


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process be one of several, of which the others are made up."""
    # Torch puts its own in place.
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    torch.distributed.init_process_group("fake", store=fake_pg.FakeStore(), rank=0, world_size=RANKS)
    yield
    torch.distributed.destroy_process_group()


def model() -> nn.Module:
    return nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(2 * RANKS)))


@pytest.mark.usefixtures("ranks")
def test_each_rank_keeps_and_steps_its_share() -> None:
    wrapped = DistributedDataParallel(model())
    with changed(torch, Changes(sharded_states=True)) as warned:
        optimizer: Any = torch.optim.AdamW(wrapped.parameters(), 0.5, weight_decay=0.25)
        backward(wrapped)
        optimizer.step()
    assert type(optimizer) is torch.distributed.optim.ZeroRedundancyOptimizer
    assert type(optimizer.optim) is torch.optim.AdamW
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.5, 0.25)
    total = sum(one.numel() for one in wrapped.parameters())
    assert share_of(optimizer) == (total // RANKS, total // RANKS)
    assert sum(state["exp_avg"].numel() for state in optimizer.optim.state.values()) == total // RANKS
    assert not warned
    assert type(torch.optim.AdamW(wrapped.parameters())) is torch.optim.AdamW


@pytest.mark.usefixtures("ranks")
def test_only_what_all_ranks_train_alike_is_shared() -> None:
    wrapped = DistributedDataParallel(model())
    replicated = replicated_in(nn.ModuleList([wrapped]))
    other = nn.Linear(2, 2)

    def why(optimizer: Any) -> str | None:
        return reason_against_sharded_states(torch, optimizer, replicated)

    assert why(torch.optim.SGD(wrapped.parameters(), 0.1)) is None
    assert "no DistributedDataParallel" in str(why(torch.optim.SGD([*wrapped.parameters(), *other.parameters()], 0.1)))
    assert "each parameter by itself" in str(why(torch.optim.LBFGS(wrapped.parameters())))
    some = {one: object() for one in replicated}
    assert "not all ranks" in str(
        reason_against_sharded_states(torch, torch.optim.SGD(wrapped.parameters(), 0.1), some)
    )
    assert share_of(torch.optim.SGD(other.parameters(), 0.1)) is None


@pytest.mark.usefixtures("ranks")
def test_a_step_within_a_step_is_counted_once() -> None:
    wrapped = DistributedDataParallel(model())
    with surveyed(torch, Changes(sharded_states=True)) as document:
        optimizer = torch.optim.AdamW(wrapped.parameters())
        for _ in range(3):
            backward(wrapped)
            optimizer.step()
            optimizer.zero_grad()
    assert len(document["steps"]) == 3
    assert document["facts"]["shares"] == [[512, 512]]


@pytest.mark.usefixtures("ranks")
@pytest.mark.parametrize("is_wrapped", [True, False])
def test_a_survey_says_whether_ranks_could_share(is_wrapped: bool) -> None:
    wrapped = DistributedDataParallel(model()) if is_wrapped else model()
    with surveyed(torch) as document:
        optimizer = torch.optim.AdamW(wrapped.parameters())
        backward(wrapped)
        optimizer.step()
    why = document["facts"]["against_sharded_states"]
    assert (why == "") is is_wrapped


def test_one_rank_shares_with_nobody() -> None:
    with changed(torch, Changes(sharded_states=True)) as warned:
        optimizer = torch.optim.AdamW(model().parameters())
    assert type(optimizer) is torch.optim.AdamW
    assert [STATES in one and "one rank" in one for one in warned] == [True]
    with surveyed(torch) as document:
        optimizer = torch.optim.AdamW((made := model()).parameters())
        backward(made)
        optimizer.step()
    assert "against_sharded_states" not in document["facts"]


@pytest.mark.usefixtures("ranks")
def test_parameters_with_names_stay() -> None:
    made = model()
    with changed(torch, Changes(sharded_states=True)) as warned:
        optimizer = torch.optim.AdamW(made.named_parameters())
    assert type(optimizer) is torch.optim.AdamW
    assert ["names" in one for one in warned] == [True]
