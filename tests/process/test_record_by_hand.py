"""Loops that train tensors by hand, without an optimizer and without a module: steps, and what each byte is for."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from memtrace.analysis.report import analyze
from memtrace.schema.names import Category
from memtrace.store.reading.read import read_trace
from tests.conftest import RunMemtrace
from tests.process.test_record_loops import Recorded, run_bare, run_recorded

pytestmark = pytest.mark.process

WEIGHTS = """
w1, w2 = torch.randn(16, 256).mul_(0.1).requires_grad_(), torch.randn(256, 4).mul_(0.1).requires_grad_()
def loss():
    return ((batch @ w1).tanh() @ w2).square().mean()
"""
BYTES = 4 * (16 * 256 + 256 * 4)
AFTER = "print([round(float(one.detach().sum()), 5) for one in (w1, w2)])\n"
BOTH = {"w1", "w2"}


class Loop(NamedTuple):
    """A loop, and what is to be found of it."""

    text: str
    names: set[str]
    """Of all parameters."""
    num_steps: int = 4
    extra_bytes: int = 0
    """Of parameters beside the two."""


LOOPS = {
    "through data": Loop(
        """
for _ in range(4):
    for w in (w1, w2):
        w.grad = None
    loss().backward()
    for w in (w1, w2):
        w.data += -0.1 * w.grad
""",
        BOTH,
    ),
    "in place": Loop(
        """
for _ in range(4):
    loss().backward()
    with torch.no_grad():
        for w in (w1, w2):
            w -= 0.1 * w.grad
            w.grad.zero_()
""",
        BOTH,
    ),
    "returned gradients": Loop(
        """
for _ in range(4):
    gradients = torch.autograd.grad(loss(), [w1, w2])
    with torch.no_grad():
        for w, gradient in zip((w1, w2), gradients):
            w.sub_(gradient, alpha=0.1)
    del gradient, gradients
""",
        BOTH,
    ),
    "two passes a step": Loop(
        """
for number in range(8):
    (loss() / 2).backward()
    if number % 2:
        with torch.no_grad():
            for w in (w1, w2):
                w -= 0.1 * w.grad
                w.grad = None
""",
        BOTH,
    ),
    "in a dictionary of an object": Loop(
        """
class Net:
    def __init__(self):
        self.weights = {"first": w1, "second": w2}
    def loss(self):
        return ((batch @ self.weights["first"]).tanh() @ self.weights["second"]).square().mean()
def train(steps):
    net = Net()
    global w1, w2
    del w1, w2
    for _ in range(steps):
        net.loss().backward()
        for w in net.weights.values():
            w.data -= 0.1 * w.grad
            w.grad = None
    return net.weights.values()
w1, w2 = train(4)
""",
        {"net.weights['first']", "net.weights['second']"},
    ),
    "an embedding of which few rows change": Loop(
        """
words = torch.randn(4096, 16).mul_(0.1).requires_grad_()
def loss():
    return ((words[torch.randint(4096, (8,))] @ w1).tanh() @ w2).square().mean()
for _ in range(4):
    loss().backward()
    for w in (words, w1, w2):
        w.data -= 0.1 * w.grad
        w.grad = None
""",
        {*BOTH, "words"},
        extra_bytes=4 * 4096 * 16,
    ),
    "micro-batches whose gradients are clipped and dropped": Loop(
        """
for number in range(12):
    loss().backward()
    sums = [w.grad.clamp(-1, 1) + (sums[at] if number % 3 else 0) for at, w in enumerate((w1, w2))]
    w1.grad = w2.grad = None
    if number % 3 == 2:
        for w, one in zip((w1, w2), sums):
            w.data -= 0.1 * one
        del sums, one
""",
        BOTH,
    ),
    "beside a frozen module": Loop(
        """
frozen = nn.Linear(16, 16)
for _ in range(4):
    with torch.no_grad():
        batch = frozen(batch)
    loss().backward()
    for w in (w1, w2):
        w.data -= 0.1 * w.grad
        w.grad = None
""",
        {*BOTH, "weight", "bias"},
        extra_bytes=4 * (16 * 16 + 16),
    ),
    "the program's own marks": Loop(
        """
import memtrace
for _ in range(4):
    loss().backward()
    for w in (w1, w2):
        w.data -= 0.1 * w.grad
        w.grad = None
    memtrace.step()
""",
        BOTH,
    ),
    "a loss of torch's": Loop(
        """
criterion = torch.nn.CrossEntropyLoss()
targets = torch.randint(4, (8,))
for _ in range(4):
    criterion((batch @ w1).tanh() @ w2, targets).backward()
    for w in (w1, w2):
        w.data -= 0.1 * w.grad
        w.grad = None
""",
        BOTH,
        # Where there are modules, the next forward ends a step.
        num_steps=3,
    ),
}


def parameters_of(recorded: Recorded, category: Category = Category.PARAMETER) -> set[str]:
    """Return the names of all that owners were written for."""
    table = recorded.trace.table("owners")
    return {str(recorded.trace.text(row["name"])) for row in table.rows() if _is(recorded, row["category"], category)}


def _is(recorded: Recorded, name: int, category: Category) -> bool:
    return recorded.trace.text(name) == category.value


def at_peak(recorded: Recorded, category: Category) -> int:
    """Return the bytes of a category at the peak."""
    return recorded.report.peak.by_category.get(category.value, 0)


@pytest.mark.parametrize("name", LOOPS)
def test_what_is_trained_by_hand_are_parameters_and_each_update_is_a_step(
    run_memtrace: RunMemtrace, tmp_path: Path, name: str
) -> None:
    loop = LOOPS[name]
    text = WEIGHTS + loop.text + AFTER
    recorded, bare = run_recorded(run_memtrace, tmp_path, text), run_bare(tmp_path, text)
    assert (recorded.done.returncode, recorded.done.stdout) == (bare.returncode, bare.stdout)
    assert bare.returncode == 0, bare.stderr
    assert recorded.ended_steps() == list(range(1, 1 + loop.num_steps))
    steps = [row for row in recorded.trace.table("steps").rows() if row["end_ns"] is not None]
    # What memtrace took for itself in a step is a part of it.
    assert all(0 <= row["recording_ns"] < row["end_ns"] - row["start_ns"] for row in steps)
    assert parameters_of(recorded) == loop.names
    assert at_peak(recorded, Category.PARAMETER) == BYTES + loop.extra_bytes
    if name not in (
        "returned gradients",
        "micro-batches whose gradients are clipped and dropped",
        "beside a frozen module",
    ):
        assert parameters_of(recorded, Category.GRADIENT) == loop.names
        assert at_peak(recorded, Category.GRADIENT) == BYTES + loop.extra_bytes
    findings = analyze(read_trace(recorded.path)).findings
    assert [one.slug for one in findings if one.severity != "info"] == []


UNTRAINED = {
    "a measurement": ("for _ in range(4):\n    loss().backward()\n", 0),
    "a measurement that drops gradients": (
        "for _ in range(4):\n    loss().backward()\n    w1.grad = w2.grad = None\n",
        0,
    ),
    "gradients of what is given": (
        "batch.requires_grad_()\nfor _ in range(4):\n    torch.autograd.grad(loss(), [batch])\n",
        0,
    ),
}


@pytest.mark.parametrize("name", UNTRAINED)
def test_what_nothing_writes_to_is_no_parameter(run_memtrace: RunMemtrace, tmp_path: Path, name: str) -> None:
    loop, num_steps = UNTRAINED[name]
    recorded = run_recorded(run_memtrace, tmp_path, WEIGHTS + loop + AFTER)
    assert recorded.done.returncode == 0, recorded.done.stderr
    assert parameters_of(recorded) == set()
    assert recorded.ended_steps() == list(range(1, 1 + num_steps))


FUNCTIONS = """
def train(steps):
    w1, w2 = torch.randn(16, 256).mul_(0.1).requires_grad_(), torch.randn(256, 4).mul_(0.1).requires_grad_()
    for _ in range(steps):
        loss = ((batch @ w1).tanh() @ w2).square().mean()
        loss.backward()
        for w in (w1, w2):
            w.data -= 0.1 * w.grad
            w.grad = None
    return loss.item()
print([train(3) for _ in range(3)])
"""
REPLACED = """
weights = [torch.randn(16, 256).mul_(0.1).requires_grad_(), torch.randn(256, 4).mul_(0.1).requires_grad_()]
for _ in range(4):
    ((batch @ weights[0]).tanh() @ weights[1]).square().mean().backward()
    weights = [(w - 0.1 * w.grad).detach().requires_grad_() for w in weights]
"""


@pytest.mark.parametrize(("text", "num_steps"), [(FUNCTIONS, 9), (REPLACED, 4)])
def test_weights_that_the_program_lets_go_of_end_their_step(
    run_memtrace: RunMemtrace, tmp_path: Path, text: str, num_steps: int
) -> None:
    recorded, bare = run_recorded(run_memtrace, tmp_path, text), run_bare(tmp_path, text)
    assert (recorded.done.returncode, recorded.done.stdout) == (bare.returncode, bare.stdout)
    assert recorded.ended_steps() == list(range(1, 1 + num_steps))
    assert len(recorded.report.steps) == num_steps


def test_gradients_of_the_first_recorded_step_are_known(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = LOOPS["in place"].text.replace("w.grad.zero_()", "w.grad = None")
    recorded = run_recorded(run_memtrace, tmp_path, WEIGHTS + text, "--steps", "2")
    assert at_peak(recorded, Category.PARAMETER) == at_peak(recorded, Category.GRADIENT) == BYTES
    assert "storages-not-allocated" not in {one.slug for one in recorded.report.warnings}


def test_measuring_gradients_many_times_costs_little(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = "for _ in range(6000):\n    torch.autograd.grad(loss(), [w1, w2])\n"
    recorded = run_recorded(run_memtrace, tmp_path, WEIGHTS + text)
    (begun,) = (row for row in recorded.trace.table("steps").rows() if row["step"] == 1)
    # Not the time itself, which depends on the machine: each pass has its walk, and few are looked at beside that.
    assert begun["end_ns"] is None
    assert len(recorded.trace.table("own_work")) < 2 * 6000


def test_what_an_optimizer_steps_later_goes_on_with_its_steps(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = (
        LOOPS["in place"].text
        + """
optimizer = torch.optim.SGD([w1, w2], lr=0.1)
for _ in range(3):
    loss().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
    )
    recorded = run_recorded(run_memtrace, tmp_path, WEIGHTS + text + AFTER)
    bare = run_bare(tmp_path, WEIGHTS + text + AFTER)
    assert (recorded.done.returncode, recorded.done.stdout) == (bare.returncode, bare.stdout)
    assert recorded.ended_steps() == list(range(1, 8))


def test_a_program_that_fails_has_ended_the_steps_before(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = LOOPS["through data"].text + "loss()\nraise SystemError('of the program')\n"
    recorded = run_recorded(run_memtrace, tmp_path, WEIGHTS + text)
    assert recorded.done.returncode == 1
    assert recorded.ended_steps() == [1, 2, 3, 4]


@pytest.mark.parametrize("steps", ["2,last1", "1", "3"])
def test_the_window_opens_and_closes_for_steps_by_hand(run_memtrace: RunMemtrace, tmp_path: Path, steps: str) -> None:
    recorded = run_recorded(run_memtrace, tmp_path, WEIGHTS + LOOPS["in place"].text, "--steps", steps)
    kept = {"2,last1": [2, 4], "1": [1], "3": [3]}[steps]
    assert [one.step for one in recorded.report.steps if one.recorded] == kept
    assert recorded.ended_steps() == [1, 2, 3, 4]
