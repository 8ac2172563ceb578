"""Records the small programs below on torch's own CUDA code without a GPU; the traces lie beside this file.

python samples/recordings/record.py PYTHON    (one whose torch is built for CUDA, as .venv-driverless/bin/python)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from memtrace.driverless.environment import VARIABLE, Devices, described_devices, environment  # noqa: E402
from memtrace.schema.redaction import Redaction  # noqa: E402
from memtrace.store.reading.read import read_trace  # noqa: E402
from memtrace.store.redaction.redact import shareable  # noqa: E402
from memtrace.store.trace import Trace  # noqa: E402
from memtrace.store.writing.trace import write_trace  # noqa: E402

_MODEL = """
import torch
from torch import nn
device = torch.device("cuda")
def made(on=device, width=256):
    model = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)).to(on)
    return model, torch.optim.AdamW(model.parameters())
def step(model, optimizer, on=device, rows=512, width=256):
    model(torch.randn(rows, width, device=on)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
_TRAINED = "\nmodel, optimizer = made()\nfor _ in range(3):\n    step(model, optimizer)\n"
PROGRAMS = {
    "expandable-segments": _TRAINED,
    "out-of-memory": """
model, optimizer = made()
kept = []
while True:
    step(model, optimizer)
    kept.append(model(torch.randn(4096, 256, device=device)))
""",
    "two-streams": """
model, optimizer = made()
side = torch.cuda.Stream()
for _ in range(3):
    with torch.cuda.stream(side):
        batch = torch.randn(4096, 256, device=device)
    torch.cuda.current_stream().wait_stream(side)
    batch.record_stream(torch.cuda.current_stream())
    model(batch).square().mean().backward()
    del batch
    optimizer.step()
    optimizer.zero_grad()
""",
    "graph": """
model, optimizer = made()
for _ in range(2):
    step(model, optimizer)
inputs = torch.randn(512, 256, device=device)
graph = torch.cuda.CUDAGraph()
with torch.no_grad(), torch.cuda.graph(graph):
    captured = model(inputs)
for _ in range(2):
    graph.replay()
    step(model, optimizer)
""",
    "two-devices": """
second = torch.device("cuda:1")
pairs = [(*made(on), on) for on in (device, second)]
for _ in range(3):
    for model, optimizer, on in pairs:
        step(model, optimizer, on)
""",
}
"""Each small enough to read whole, and of a kind that a recording of a plain run does not show."""


def record(name: str, program: str, python: str) -> None:
    """Record one program into a file of its name."""
    devices = Devices(
        gpu="a100-40gb",
        num_devices=2 if name == "two-devices" else 1,
        memory_bytes=600 * 1024**2 if name == "out-of-memory" else None,
    )
    settings = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"} if name == "expandable-segments" else {}
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **environment(devices, python=python), **settings}
    environ.pop("MEMTRACE_RECORD", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.py"
        path.write_text(_MODEL + program, encoding="utf-8")
        output = Path(folder) / "trace.json"
        words = ["record", "--quiet", "--steps", "1-", "-o", str(output), "--", python, "train.py"]
        subprocess.run([python, "-m", "memtrace", *words], cwd=folder, env=environ, check=name != "out-of-memory")
        write_trace(_shown(read_trace([output]), devices), HERE / f"{name}.json.gz")


def _shown(trace: Trace, devices: Devices) -> Trace:
    """Return a trace that names nothing of the machine, and says that no GPU took part."""
    hidden = shareable(trace, Redaction.PERSONAL)
    mark = {VARIABLE: described_devices(devices, cuda_major=13)}
    ranks = [
        replace(one, header={**one.header, "environment": {**(one.header.get("environment") or {}), **mark}})
        for one in hidden.ranks
    ]
    return replace(hidden, ranks=tuple(ranks))


def main() -> None:
    """Record all."""
    for name, program in PROGRAMS.items():
        record(name, program, sys.argv[1])


if __name__ == "__main__":
    main()
