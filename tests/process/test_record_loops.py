"""Kinds of training loops: where steps end, which phases there are, and that recording changes nothing in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from memtrace.analysis.report import analyze
from memtrace.analysis.results.report import RankReport
from memtrace.store.reading.read import read_trace
from memtrace.store.trace import RankTrace
from tests.conftest import ROOT, RunMemtrace
from tests.warm.start import warm_python
from tests.watch import LIBRARY, WHY_NOT

SETUP = """
import torch
from torch import nn
torch.manual_seed(0)
torch.set_num_threads(1)
def network():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
model = network()
batch = torch.randn(8, 16)
"""


class Recorded:
    """A script that was recorded: what it printed, how it ended, and the trace."""

    def __init__(self, done: subprocess.CompletedProcess[str], path: Path) -> None:
        self.done = done
        self.path = path
        self.trace: RankTrace = read_trace(path).ranks[0]

    @property
    def report(self) -> RankReport:
        """The report of the one rank."""
        return analyze(read_trace(self.path)).ranks[0]

    def ended_steps(self) -> list[int]:
        """Numbers of the steps that ended, without step 0."""
        return [step.step for step in self.report.steps if step.end_ns is not None]

    def phases(self, step: int) -> list[str]:
        """Names of the phases of a step, in the order of their beginning."""
        table = self.trace.table("phases")
        rows = sorted((row for row in table.rows() if row["step"] == step), key=lambda row: row["start_ns"])
        return [str(self.trace.text(row["phase"])) for row in rows]

    def slugs(self) -> set[str]:
        """Slugs of all warnings."""
        return {warning.slug for warning in self.trace.warnings}


def run_recorded(run_memtrace: RunMemtrace, folder: Path, text: str, *options: str) -> Recorded:
    """Run a script of these lines under `memtrace record`."""
    script = folder / "script.py"
    script.write_text(SETUP + text)
    done = run_memtrace("record", *options, "-o", folder / "t.json", "--", warm_python(), script)
    return Recorded(done, folder / "t.json")


def run_bare(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run the same script without memtrace."""
    (folder / "bare.py").write_text(SETUP + text)
    command = [warm_python(), str(folder / "bare.py")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_steps_that_a_scaler_skips_are_counted_and_marked(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
for number in range(4):
    optimizer.zero_grad()
    loss = model(batch).sum() * (float("inf") if number < 2 else 1.0)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
"""
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert [(step.step, step.skipped) for step in recorded.report.steps] == [
        (1, True),
        (2, True),
        (3, False),
        (4, False),
    ]
    assert recorded.trace.header["uses_grad_scaler"] is True


def test_two_optimizers_in_turn_make_one_step(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
other = network()
first = torch.optim.SGD(model.parameters(), lr=0.1)
second = torch.optim.Adam(other.parameters(), lr=0.1)
for _ in range(3):
    for one, optimizer in ((model, first), (other, second)):
        optimizer.zero_grad()
        one(batch).sum().backward()
        optimizer.step()
"""
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert recorded.ended_steps() == [1, 2, 3]
    assert recorded.phases(2) == ["forward", "backward", "optimizer"] * 2


def test_a_closure_runs_forward_inside_the_optimizer(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
def closure():
    optimizer.zero_grad()
    loss = model(batch).square().sum()
    loss.backward()
    return loss
for _ in range(3):
    optimizer.step(closure)
"""
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert recorded.ended_steps() == [1, 2, 3]
    phases = recorded.phases(2)
    assert phases[:3] == ["optimizer", "forward", "backward"]


def test_optimizers_inside_backward_make_one_step_and_show_their_gradients(
    run_memtrace: RunMemtrace, tmp_path: Path
) -> None:
    text = """
optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
def step(parameter):
    optimizers[parameter].step()
    optimizers[parameter].zero_grad()
for parameter in model.parameters():
    parameter.register_post_accumulate_grad_hook(step)
for _ in range(3):
    model(batch).sum().backward()
"""
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert recorded.ended_steps() == [1, 2, 3]
    owners = recorded.trace.table("owners")
    gradient = recorded.trace.string_id("gradient")
    seen = {row["size_bytes"] for row in owners.rows() if row["category"] == gradient and row["step"] == 2}
    assert seen == {4 * 16 * 32, 4 * 32, 4 * 32 * 4, 4 * 4}


def test_evaluation_between_steps_is_no_forward_of_a_step(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    model(batch).sum().backward()
    optimizer.step()
    with torch.no_grad():
        model(batch)
"""
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert recorded.ended_steps() == [1, 2]
    assert recorded.phases(1) == ["forward", "backward", "optimizer"]
    assert recorded.phases(2) == ["evaluation", "forward", "backward", "optimizer"]


def test_a_loop_without_an_optimizer_steps_at_each_forward_after_a_backward(
    run_memtrace: RunMemtrace, tmp_path: Path
) -> None:
    text = """
for _ in range(3):
    model(batch).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
            parameter.grad = None
"""
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert recorded.ended_steps() == [1, 2]
    assert [step.end_ns for step in recorded.report.steps if step.step == 3] == [None]


def test_accumulation_counts_microbatches(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(batch), batch_size=2)
for _ in range(2):
    for (rows,) in loader:
        model(rows).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert [(step.step, step.num_microbatches) for step in recorded.report.steps] == [(1, 4), (2, 4)]
    assert recorded.phases(2)[:3] == ["data", "forward", "backward"]


def test_the_programs_own_profiler_is_complete(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
from torch.profiler import ProfilerActivity, profile, schedule
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def ready(profiler):
    names = [event.name for event in profiler.events()]
    print(names.count("aten::addmm"), names.count("[memory]"))
with profile(
    activities=[ProfilerActivity.CPU],
    schedule=schedule(wait=1, warmup=1, active=2),
    on_trace_ready=ready,
    profile_memory=True,
) as profiler:
    for _ in range(5):
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()
        profiler.step()
"""
    bare = run_bare(tmp_path, text)
    assert bare.stdout.startswith("4 ")
    # By torch's profiler, which gives way.
    recorded = run_recorded(run_memtrace, tmp_path, text, "--stacks", "all")
    assert recorded.done.stdout == bare.stdout
    assert recorded.trace.header["sources"]["events"] == "cpu_profiler"
    assert "user-profiler" in recorded.slugs()
    assert recorded.ended_steps() == [1, 2, 3, 4, 5]


@pytest.mark.skipif(LIBRARY is None, reason=WHY_NOT)
def test_a_watched_run_has_all_that_the_program_profiles(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with torch.profiler.profile(profile_memory=True) as profiler:
    for _ in range(3):
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()
        torch.empty(12345)
events = profiler.events()
print(len(events), sum(event.cpu_memory_usage for event in events))
"""
    bare = run_bare(tmp_path, text)
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert recorded.done.stdout == bare.stdout
    assert recorded.trace.header["sources"]["events"] == "cpu_allocator"
    assert not {"user-profiler", "unseen-bytes"} & recorded.slugs()
    assert recorded.ended_steps() == [1, 2, 3]
    events = recorded.trace.table("events")
    assert np.count_nonzero(events["size_bytes"] == 4 * 12345) == 6


@pytest.mark.skipif(LIBRARY is None, reason=WHY_NOT)
def test_marks_are_known_of_steps_outside_the_window(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
for step in range(1, 7):
    large = torch.empty(1_000_000 if step == 5 else 10)
    del large
    loss = model(batch).sum()
    loss.backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()
"""
    recorded = run_recorded(run_memtrace, tmp_path, text, "--steps", "1-2")
    marks = {step.step: step.high_water_bytes for step in recorded.report.steps}
    assert None not in (marks[number] for number in range(1, 7))
    assert marks[5] - marks[4] == pytest.approx(4_000_000, abs=20_000)
    assert marks[6] == marks[4]


@pytest.mark.skipif(LIBRARY is None, reason=WHY_NOT)
def test_training_on_another_thread_is_watched(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
import threading
def train():
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(batch).sum().backward()
        torch.empty(12345)
        optimizer.step()
thread = threading.Thread(target=train)
thread.start()
thread.join()
"""
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert "steps-on-other-thread" not in recorded.slugs()
    assert recorded.ended_steps() == [1, 2, 3]
    assert all(step.peak_allocated_bytes for step in recorded.report.steps)
    events, strings = recorded.trace.table("events"), recorded.trace
    (row, *_) = np.flatnonzero(events["size_bytes"] == 4 * 12345)
    stacks, frames = recorded.trace.table("stacks"), recorded.trace.table("frames")
    names, at = [], events["stack"][row]
    while at >= 0:
        names.append(strings.text(frames["function"][stacks["frame"][at]]))
        at = stacks["parent"][at]
    assert names[:2] == ["train", "run"]


def test_functional_gradients_and_custom_functions_run_as_bare(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2
    @staticmethod
    def backward(ctx, g):
        return g * 2
print(torch.func.grad(lambda x: model(x).sum())(batch).sum().item())
print(torch.autograd.grad(Double.apply(model(batch)).sum(), list(model.parameters()))[0].sum().item())
with torch.autograd.graph.saved_tensors_hooks(lambda t: (print("pack"), t)[1], lambda t: (print("unpack"), t)[1]):
    model(batch).sum().backward()
"""
    bare = run_bare(tmp_path, text)
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert bare.returncode == 0, bare.stderr
    assert recorded.done.stdout == bare.stdout


def test_a_saved_tensor_changed_in_place_still_raises(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
hidden = model(batch).exp()
loss = hidden.sum()
hidden.add_(1)
loss.backward()
"""
    bare = run_bare(tmp_path, text)
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert bare.returncode == recorded.done.returncode == 1
    message = "modified by an inplace operation"
    assert message in bare.stderr
    assert message in recorded.done.stderr
    assert recorded.trace.header["exception"]["type"] == "RuntimeError"


def test_losses_are_those_of_a_bare_run(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    command = [str(ROOT / "samples" / "train_gpt.py"), "--steps", "4", "--layers", "2", "--hidden", "32"]
    command += ["--dropout", "0.1", "--checkpointing", "--device", "cpu", "--precision", "bf16"]
    bare = subprocess.run([warm_python(), *command], capture_output=True, text=True, timeout=120)
    done = run_memtrace("record", "-o", tmp_path / "t.json", "--", warm_python(), *command)
    assert done.stdout == bare.stdout
    assert bare.stdout.count("loss") == 4
    recorded = Recorded(done, tmp_path / "t.json")
    assert recorded.phases(2).count("recompute") == 2


LONG = """
import sys
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for number in range(1, int(sys.argv[1]) + 1):
    optimizer.zero_grad()
    loss = model(batch).sum()
    loss.backward()
    if number == int(sys.argv[2]):
        {end}
    optimizer.step()
"""


def run_long(run_memtrace: RunMemtrace, folder: Path, end: str, steps: int, last: int) -> Recorded:
    """Record a loop that ends in its step `last` by the statement `end`."""
    script = folder / f"long{steps}.py"
    script.write_text(SETUP + LONG.format(end=end))
    trace = folder / f"long{steps}.json"
    done = run_memtrace("record", "-o", trace, "--", warm_python(), script, str(steps), str(last))
    return Recorded(done, trace)


def test_an_exception_at_step_500_keeps_the_first_and_the_last_steps(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    recorded = run_long(run_memtrace, tmp_path, "raise ValueError('at the end')", 600, 500)
    short = run_long(run_memtrace, tmp_path, "raise ValueError('at the end')", 10, 10)
    kept = {step.step for step in recorded.report.steps if step.recorded}
    assert {1, 2, 3, 499, 500} <= kept <= {1, 2, 3, 498, 499, 500}
    assert len(recorded.report.steps) == 500
    num_marks = sum(len(recorded.trace.table(name)) for name in ("phases", "scopes", "owners", "saved", "events"))
    assert num_marks <= sum(len(short.trace.table(name)) for name in ("phases", "scopes", "owners", "saved", "events"))
    assert recorded.trace.header["exception"]["message"] == "at the end"


def test_sigkill_in_step_three_loses_that_step_only(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    recorded = run_long(run_memtrace, tmp_path, "import os; os.kill(os.getpid(), 9)", 5, 3)
    assert recorded.done.returncode in (-9, 137)
    assert not recorded.trace.complete
    assert recorded.ended_steps() == [1, 2]
    assert all(step.recorded for step in recorded.report.steps)
    assert "incomplete" in {note.slug for note in recorded.report.warnings}


def test_chosen_steps_alone_are_recorded(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    script = tmp_path / "long.py"
    script.write_text(SETUP + LONG.format(end="pass"))
    trace = tmp_path / "t.json"
    done = run_memtrace("record", "--steps", "2,5-6", "-o", trace, "--", warm_python(), script, "8", "0")
    recorded = Recorded(done, trace)
    assert [step.step for step in recorded.report.steps if step.recorded] == [2, 5, 6]
    assert recorded.ended_steps() == list(range(1, 9))


def test_a_stretch_without_steps_keeps_its_beginning_and_its_end(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
import memtrace.hooks.loop.window as window
window._MAX_CHUNK_NS = 0
with torch.no_grad():
    for number in range(400):
        model(batch)
"""
    recorded = run_recorded(run_memtrace, tmp_path, text, "--max-entries", "1000")
    assert "events-lost" in recorded.slugs()
    assert 1000 <= len(recorded.trace.table("events")) < 1100
    starts = recorded.trace.table("windows")["start_ns"]
    assert starts[-1] - starts[0] > 0


def test_backward_within_what_is_compiled_ends_as_bare(run_memtrace: RunMemtrace, tmp_path: Path) -> None:
    text = """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
@torch.compile(backend="eager")
def step():
    loss = model(batch).sum()
    loss.backward()
    return loss
for _ in range(8):
    print(step().item())
    optimizer.step()
    optimizer.zero_grad()
"""
    bare = run_bare(tmp_path, text)
    recorded = run_recorded(run_memtrace, tmp_path, text, "--stacks", "all", "--steps", "1-")
    assert recorded.done.stdout == bare.stdout
    assert recorded.ended_steps() == list(range(1, 9))
