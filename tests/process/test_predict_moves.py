"""Every form in which a program moves modules and tensors to a GPU is the same to a prediction as `.to("cuda")`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.process.test_predict import memtrace

PROGRAM = Path(__file__).parent / "programs" / "moves.py"
N, FLOAT = 64, 4
ROW = 512
"""What the caching allocator gives for less."""
BYTES = {
    # A matrix, and six vectors of a row: bias, and weight, bias, mean, variance and count of the batch norm.
    "modules": FLOAT * N * N + 6 * ROW,
    "tensors": FLOAT * N * N,
    "packed sequences": FLOAT * 8 * 16 * N,
}


def test_every_form_of_moving_takes_the_same_bytes(tmp_path: Path) -> None:
    done = memtrace("predict", "--steps", "100", "--", sys.executable, "-W", "ignore", PROGRAM, cwd=tmp_path)
    found = json.loads(done.stdout.splitlines()[0])
    assert found.keys() == BYTES.keys()
    for kind, forms in found.items():
        assert {name: outcome for name, outcome in forms.items() if outcome != [BYTES[kind], ["cuda:0"]]} == {}
        assert len(forms) >= 5
