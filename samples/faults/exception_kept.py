"""A batch that ran out of memory is tried again by halves, but the exception that was caught keeps its frames alive."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(64, 2048), nn.GELU(), nn.Linear(2048, 64))
optimizer = torch.optim.AdamW(model.parameters())
failures = []


def step_on(rows: torch.Tensor) -> None:
    hidden = model(rows)
    if len(rows) > 512:
        raise torch.OutOfMemoryError("made up: the device is full")
    F.mse_loss(hidden, rows).backward()
    optimizer.step()
    optimizer.zero_grad()


for step in range(4):
    rows = torch.randn(1024, 64)
    try:
        step_on(rows)
    except torch.OutOfMemoryError as error:
        failures.append(str(error) if REPAIRED else error)
    for half in rows.chunk(2):
        step_on(half)
    print(f"step {step}")
