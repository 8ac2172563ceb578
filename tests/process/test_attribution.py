"""Recordings of the samples: every byte of the peak is attributed, and owners stay exact whatever rules add."""

from __future__ import annotations

import numpy as np
import pytest

from memtrace.analysis.attribution.attribute import CATEGORIES, DECISIONS
from memtrace.analysis.device.activations import saved_for_backward
from memtrace.analysis.device.device_history import DeviceHistory, build_history
from memtrace.analysis.device.peak import peak_between
from memtrace.analysis.device.steps import step_spans
from memtrace.schema.names import Category, Decision
from tests.conftest import ROOT
from tests.process.conftest import Workplace
from tests.warm.start import warm_python

GPT = (ROOT / "samples" / "train_gpt.py", "--device", "cpu", "--steps", "3", "--hidden", "64", "--sequence", "32")
RESNET = (ROOT / "samples" / "train_resnet.py", "--device", "cpu", "--steps", "10", "--micro-batch", "4")
"""More steps than are kept: two more come after a gap."""

RUNS: dict[str, tuple[object, ...]] = {
    "plain": GPT,
    "accumulated in bf16": (*GPT, "--accumulation", "2", "--precision", "bf16", "--optimizer", "sgd-momentum"),
    "checkpointed": (*GPT, "--checkpointing", "--no-foreach"),
    "explicit attention": (*GPT, "--attention", "explicit", "--dropout", "0.1", "--optimizer", "sgd", "--foreach"),
    "resnet": RESNET,
}

TRICKS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(64, 128), torch.nn.Linear(128, 64)

    def forward(self, x):
        return self.two(self.one(x).relu())

torch.manual_seed(0)
net, teacher = Net(), Net()
average = {name: value.clone() for name, value in net.state_dict().items()}
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
data = torch.randn(4, 17, 64)
kept = []
for step in range(4):
    x = data[step] * 2
    with torch.no_grad():
        target = teacher(x)
    out = net(x)
    loss = (out - target).pow(2).mean()
    kept.append(loss.detach() * torch.ones(300))
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    # A storage that moves, and one that another takes the place of.
    net.one.bias.data = net.one.bias.data.clone()
    x.resize_(64, 64)
"""


def recorded(work: Workplace, *command: object) -> DeviceHistory:
    """Record a program and return its history on the CPU."""
    ran = work.record(warm_python(), *map(str, command))
    assert ran.returncode == 0, ran.stderr
    return build_history(work.rank(), "cpu", owns_marks=True)


def rows_of(history: DeviceHistory, category: Category) -> np.ndarray:
    return np.flatnonzero(history.attribution.category == CATEGORIES.index(category))


def check_owned(history: DeviceHistory) -> None:
    """Assert that nothing an owner names was given another category, or by another decision."""
    owners, found = history.rank.table("owners"), history.attribution
    named = np.flatnonzero(found.allocation_of_owner >= 0)
    assert len(named)
    assert set(found.decision[found.allocation_of_owner[named]].tolist()) == {DECISIONS.index(Decision.OWNER)}
    inferred = [DECISIONS.index(one) for one in (Decision.STACK_RULE, Decision.LIFETIME_RULE)]
    guessed = np.flatnonzero(np.isin(found.decision, inferred))
    assert not np.isin(guessed, found.allocation_of_owner[named]).any()
    assert np.all(found.owner_row[guessed] < 0)
    # Addresses are used again: what was temporary was not live when its address was swept.
    for row in rows_of(history, Category.TEMPORARY).tolist():
        same = owners["address"] == history.lifetimes.address[row]
        moments = history.moments.at_times(owners["time_ns"][same])
        assert not np.any((history.lifetimes.start[row] <= moments) & (moments < history.lifetimes.in_use_end[row]))


def check_attributed(history: DeviceHistory) -> None:
    """Assert that at most a hundredth of the peak, of the run and of each of its steps, is unattributed."""
    for span in step_spans(history).values():
        if span.step:
            peak = peak_between(history, span.first, span.last)
            assert peak.by_category["unknown"] <= 0.01 * (peak.requested_bytes or 0), (span.step, peak.by_category)


@pytest.mark.parametrize("name", RUNS)
def test_the_peak_is_attributed(work: Workplace, name: str) -> None:
    history = recorded(work, *RUNS[name])
    check_attributed(history)
    check_owned(history)
    found = saved_for_backward(history)
    assert len(found) == {"accumulated in bf16": 6, "resnet": 5}.get(name, 3)
    # Every step of these does the same.
    assert len({(one.saved_bytes, one.output_bytes) for one in found}) == 1
    assert found[0].saved_bytes > found[0].output_bytes > 0


def test_the_tricks_of_real_loops(work: Workplace) -> None:
    """A teacher, an average of the weights, losses that are kept, clipping, storages that move."""
    history = recorded(work, work.write("train.py", TRICKS, trains=False))
    check_owned(history)
    sizes = {category: history.lifetimes.size_bytes[rows_of(history, category)].tolist() for category in Category}
    weights = [64 * 128 * 4, 128 * 4, 64 * 128 * 4, 64 * 4]
    for size in weights:
        # Those of the average are no input, whatever else they are.
        assert size not in sizes[Category.INPUT]
    assert sizes[Category.INPUT].count(4 * 17 * 64 * 4) == 1, "the data"
    kept = [sizes[category].count(300 * 4) for category in (Category.ACTIVATION, Category.UNKNOWN)]
    assert (sum(kept), kept[0] >= 3) == (4, True), "the losses that are kept; of the last nothing more is seen"
    assert sum(size in weights for size in sizes[Category.PARAMETER]) >= 8, "both models"
    unknown = rows_of(history, Category.UNKNOWN)
    live = unknown[(history.lifetimes.in_use_end[unknown] >= history.last_moment)]
    # The average; the last norm of the gradients; the last batch, made larger when no forward was to follow.
    last = [300 * 4] * kept[1]
    assert sorted(history.lifetimes.size_bytes[live].tolist()) == sorted([*weights, *last, 4, 64 * 64 * 4])
