"""Loops whose optimizer steps torch compiles, against the same loops without the compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunMemtrace
from tests.process.test_record_loops import Recorded, run_bare, run_recorded

pytestmark = pytest.mark.process

LOOPS = {
    "the step": """
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
@compiled
def step():
    optimizer.step()
for _ in range(4):
    optimizer.zero_grad()
    model(batch).sum().backward()
    step()
""",
    "all of it": """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
@compiled
def train():
    optimizer.zero_grad()
    model(batch).sum().backward()
    optimizer.step()
for _ in range(4):
    train()
""",
    "accumulation": """
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
@compiled
def step():
    optimizer.step()
    optimizer.zero_grad()
for number in range(6):
    model(batch).sum().backward()
    if number % 2:
        step()
""",
    "two of them": """
other = network()
first = torch.optim.SGD(model.parameters(), lr=0.1)
second = torch.optim.Adam(other.parameters(), lr=0.1)
@compiled
def step_first():
    first.step()
@compiled
def step_second():
    second.step()
for _ in range(3):
    first.zero_grad()
    model(batch).sum().backward()
    step_first()
    second.zero_grad()
    other(batch).sum().backward()
    step_second()
""",
    "the first eager": """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
@compiled
def step():
    optimizer.step()
for number in range(4):
    optimizer.zero_grad()
    model(batch).sum().backward()
    step() if number else optimizer.step()
""",
}
AFTER = """
print([round(float(one.detach().sum()), 4) for one in model.parameters()])
counters = getattr(sys.modules.get("torch._dynamo.utils"), "counters", {})
print({name: counters[name] for name in ("stats", "graph_break") if name in counters})
"""
EAGER = "import sys\ndef compiled(one): return one\n"


def steps(recorded: Recorded) -> list[tuple[int, int]]:
    """Return the steps that ended, each with its number of microbatches."""
    return [(one.step, one.num_microbatches) for one in recorded.report.steps if one.end_ns is not None]


def held_at_ends(recorded: Recorded) -> list[int | None]:
    """Return the bytes that are held at the end of each step."""
    return [one.end.requested_bytes for one in recorded.report.steps if one.end_ns is not None and one.end is not None]


@pytest.mark.parametrize("name", LOOPS)
def test_compiled_steps_are_those_of_the_same_loop_without_the_compiler(
    run_memtrace: RunMemtrace, tmp_path: Path, name: str
) -> None:
    backend = '"inductor"' if name == "the step" else '"aot_eager"'
    head = f"import sys\ndef compiled(one): return torch.compile(one, backend={backend})\n"
    text = head + LOOPS[name] + AFTER
    recorded, bare = run_recorded(run_memtrace, tmp_path, text), run_bare(tmp_path, text)
    assert (recorded.done.returncode, recorded.done.stdout) == (bare.returncode, bare.stdout)
    assert bare.returncode == 0, bare.stderr
    (tmp_path / "eager").mkdir()
    eager = run_recorded(run_memtrace, tmp_path / "eager", EAGER + LOOPS[name] + AFTER)
    assert steps(eager)
    assert steps(recorded) == steps(eager)
    assert "steps-compiled" in recorded.slugs()
    assert "steps-compiled" not in eager.slugs()
    if name == "all of it":
        # A step ends before the forward of the next one, which no module tells of.
        assert held_at_ends(recorded) == held_at_ends(eager)


UNCOMPILED = {
    "a clip": """
for number in range(6):
    runs(batch).sum().backward()
    with torch.no_grad():
        for one in model.parameters():
            one.clamp_(-1, 1)
    if number % 2:
        optimizer.step()
        optimizer.zero_grad()
""",
    "a step in the direction that is worst": """
for number in range(3):
    runs(batch).sum().backward()
    with torch.no_grad():
        for one in model.parameters():
            one.add_(one.grad, alpha=0.05)
    runs(batch).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
""",
    "a closure": """
optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
def closure():
    optimizer.zero_grad()
    loss = runs(batch).square().sum()
    loss.backward()
    return loss
for _ in range(3):
    optimizer.step(closure)
    runs(batch)
""",
}


@pytest.mark.parametrize("name", UNCOMPILED)
def test_what_is_written_ends_no_step_where_the_optimizer_is_not_compiled(
    run_memtrace: RunMemtrace, tmp_path: Path, name: str
) -> None:
    head = """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
runs = torch.compile(model, backend="eager")
"""
    recorded = run_recorded(run_memtrace, tmp_path, head + UNCOMPILED[name])
    assert [number for number, _ in steps(recorded)] == [1, 2, 3]
    assert "steps-compiled" not in recorded.slugs()
