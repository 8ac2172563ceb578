"""Temporaries of kernels at the peak of a predicted program, where the test can say what the peak consists of."""

from __future__ import annotations

from pathlib import Path

from memtrace.analysis.report import analyze
from memtrace.store.reading.read import read_trace
from tests.process.test_predict import memtrace
from tests.warm.start import warm_python

WEIGHTS, WIDTH, INDICES = 20_000, 64, 8 * 1024
PROGRAM = f"""
import torch
table = torch.nn.Embedding({WEIGHTS}, {WIDTH}).cuda()
optimizer = torch.optim.SGD(table.parameters(), 0.1)
for _ in range(2):
    table(torch.zeros(8, 1024, dtype=torch.int64, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_the_gradient_of_an_embedding_is_added_up_in_parts(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PROGRAM)
    memtrace("predict", "-o", "predicted.json", "--steps", "2", "--", warm_python(), "train.py", cwd=tmp_path)
    (rank,) = [one for one in analyze(read_trace([tmp_path / "predicted.json"])).ranks if one.device != "cpu"]
    parts = INDICES // 10 + INDICES
    sorting = (3 * INDICES + 2 * INDICES + parts) * 8
    # The sum spreads one number over all rows, and the kernel reads a copy of it.
    copied = INDICES * WIDTH * 4
    expected = 2 * WEIGHTS * WIDTH * 4 + INDICES * 8 + copied + parts * WIDTH * 4 + sorting
    # Beside that there are the loss and its gradient, one number each.
    assert (rank.peak.requested_bytes or 0) - expected in (4, 8)
