"""Very many allocations between two hooks, and very many parameters: nothing is lost, and memory is bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RunMemtrace
from tests.process.test_record_loops import run_recorded

NUM_ALLOCATIONS = 250_000
NUM_PARAMETERS = 300


# Python's collector hears of a thousand that live at once, and nothing of one after the other.
@pytest.mark.parametrize("num_alive", [1000, 1])
def test_a_surge_of_tensors_is_written_in_pieces_and_whole(
    run_memtrace: RunMemtrace, tmp_path: Path, num_alive: int
) -> None:
    text = f"""
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def train():
    optimizer.zero_grad()
    model(batch).sum().backward()
    optimizer.step()
train()
import warnings
warnings.simplefilter("error")
for _ in range({NUM_ALLOCATIONS} // {num_alive}):
    kept = [torch.empty(11) for _ in range({num_alive})]
    kept.clear()
train()
"""
    recorded = run_recorded(run_memtrace, tmp_path, text, "--steps", "last2")
    assert (recorded.done.returncode, recorded.done.stdout) == (0, "")
    assert "Warning" not in recorded.done.stderr
    events, windows = recorded.trace.table("events"), recorded.trace.table("windows")
    of_surge = events["size_bytes"] == 4 * 11
    actions, counts = np.unique(events["action"][of_surge], return_counts=True)
    named = dict(zip((recorded.trace.text(action) for action in actions), counts.tolist(), strict=True))
    assert named == {"alloc": NUM_ALLOCATIONS, "free_completed": NUM_ALLOCATIONS}
    pieces = [row for row in windows.rows() if recorded.trace.text(row["reason"]) == "ring"]
    assert pieces
    assert all(row["continues"] for row in pieces)
    # No piece holds the whole surge.
    assert max(windows["num_events"]) < 2 * NUM_ALLOCATIONS


def test_owners_are_told_at_each_step_end_though_they_are_encoded_once(
    run_memtrace: RunMemtrace, tmp_path: Path
) -> None:
    text = f"""
tensors = nn.ParameterList([nn.Parameter(torch.zeros(3)) for _ in range({NUM_PARAMETERS})])
model = nn.Module()
model.tensors = tensors
model.forward = lambda: torch.cat([tensor * 2 for tensor in tensors]).sum()
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
for step in range(6):
    optimizer.zero_grad()
    model().backward()
    if step == 2:
        tensors[7].data = torch.ones(5)
        tensors[7].grad = torch.ones(5)
        optimizer.state.pop(tensors[7])
    optimizer.step()
"""
    recorded = run_recorded(run_memtrace, tmp_path, text)
    assert recorded.done.returncode == 0, recorded.done.stderr
    trace = recorded.trace
    owners = trace.table("owners")
    rows = [
        (row["step"], trace.text(row["category"]), trace.text(row["name"]), trace.text(row["shape"]))
        for row in owners.rows()
    ]
    for step in (1, 2, 3, 5, 6):
        wanted = {
            (step, category, name.format(f"tensors.{number}"), shape)
            for number in range(NUM_PARAMETERS)
            for category, name, shape in (
                ("parameter", "{}", "5" if step > 2 and number == 7 else "3"),
                ("gradient", "{}", "5" if step > 2 and number == 7 else "3"),
                ("optimizer_state", "exp_avg of {}", "5" if step > 2 and number == 7 else "3"),
                ("optimizer_state", "exp_avg_sq of {}", "5" if step > 2 and number == 7 else "3"),
                ("optimizer_state", "step of {}", ""),
            )
        }
        assert {row for row in rows if row[0] == step} == wanted
    # And before training, and at the end.
    told = {row[0] for row in rows}
    assert told - {4} == {0, 1, 2, 3, 5, 6, 7}, "the fourth is kept where its peak is the highest"
    assert "hook-failed" not in recorded.slugs()
