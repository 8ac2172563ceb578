"""A history of about a million events as torch records it, and the same with events lost, joined or in disorder.

torch writes each event with a list of frames of its own: 908,606 lists for 149 distinct stacks in 430 steps of GPT-2.
Where torch's CUDA build is installed (`make driverless`, or a Python named in MEMTRACE_DRIVERLESS_PYTHON), the history
is torch's own; else a small real one is repeated, each event with a list of its own.
"""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from load import SNAPSHOT  # noqa: E402

from memtrace.driverless.environment import Devices, environment  # noqa: E402
from tests.lost_events import without_pairs  # noqa: E402

EVENTS_A_STEP = 3170
PROGRAM = """
import sys, torch, torch.nn as nn, torch.nn.functional as F
torch.cuda.memory._record_memory_history(max_entries=10_000_000)
class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    def forward(self, x):
        batch, length, width = x.shape
        heads = self.qkv(self.first(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        x = x + self.out(attended.reshape(batch, length, width))
        return x + self.mlp(self.second(x))
class GPT(nn.Module):
    def __init__(self, words=50257, width=768, layers=12, heads=12, length=1024):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
    def forward(self, tokens):
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
with torch.device("cuda"):
    model = GPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(int(sys.argv[2])):
    tokens = torch.randint(0, 50257, (8, 1024)).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(tokens).view(-1, 50257), tokens.view(-1))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
torch.cuda.memory._dump_snapshot(sys.argv[1])
"""


def write_history(path: Path, num_events: int) -> str:
    """Write a history of about so many events. Return what it is, in words."""
    python = Path(os.environ.get("MEMTRACE_DRIVERLESS_PYTHON", ROOT / ".venv-driverless" / "bin" / "python"))
    if python.exists():
        steps = max(1, num_events // EVENTS_A_STEP)
        added = environment(Devices(), python=str(python))
        command = [str(python), "-c", PROGRAM, str(path), str(steps)]
        subprocess.run(command, env={**os.environ, **added}, check=True, stdout=subprocess.DEVNULL)
        return f"torch's own history of {steps} steps of GPT-2, recorded without a GPU"
    _write_repeated(path, num_events)
    return f"no torch for CUDA here: {SNAPSHOT.stem} repeated, each event with a list of frames of its own"


def _write_repeated(path: Path, num_events: int) -> None:
    # This one file is ours to trust: it is checked in the tests to hold plain data.
    data = pickle.loads(SNAPSHOT.read_bytes())
    number, history = next((at, one) for at, one in enumerate(data["device_traces"]) if one)
    span_us = history[-1]["time_us"] - history[0]["time_us"] + 1
    repeated = []
    for at in range(num_events):
        turn, place = divmod(at, len(history))
        event = history[place]
        frames = list(event.get("frames") or ())
        repeated.append({**event, "time_us": event["time_us"] + turn * span_us, "frames": frames})
    data["device_traces"][number] = repeated
    path.write_bytes(pickle.dumps(data, protocol=4))


Events = list[dict[str, Any]]


def _with_a_hole(events: Events) -> Events:
    return events[: len(events) // 3] + events[len(events) // 3 + 5000 :]


def _joined(events: Events) -> Events:
    return events[: len(events) // 2] + events[len(events) // 4 :]


def _in_disorder(events: Events) -> Events:
    """Shuffle twenty events in every thousand."""
    events, choose = list(events), random.Random(1)
    for at in range(0, len(events) - 20, 1000):
        some = events[at : at + 20]
        choose.shuffle(some)
        events[at : at + 20] = some
    return events


CHANGES: dict[str, Callable[[Events], Events]] = {
    "5,000 events lost": _with_a_hole,
    "two files joined": _joined,
    "20 of each 1,000 events shuffled": _in_disorder,
    "0.1 % of allocations lost": partial(without_pairs, share=0.001),
    "1 % of allocations lost": partial(without_pairs, share=0.01),
    "10 % of allocations lost": partial(without_pairs, share=0.1),
    "half of the allocations lost": partial(without_pairs, share=0.5),
}


def write_changed(path: Path, source: Path, change: Callable[[Events], Events]) -> None:
    """Write a history that was changed."""
    data = pickle.loads(source.read_bytes())
    data["device_traces"] = [change(events) if events else events for events in data["device_traces"]]
    path.write_bytes(pickle.dumps(data, protocol=4))
