"""The validation loss is summed with its graph: nothing of the validation set is freed until the sum is."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(64, 2048), nn.GELU(), nn.Linear(2048, 64))
optimizer = torch.optim.AdamW(model.parameters())


def validate() -> float:
    total = torch.zeros(())
    with torch.set_grad_enabled(not REPAIRED):
        for _ in range(8):
            rows = torch.randn(256, 64)
            total = total + F.mse_loss(model(rows), rows)
    return total.item()


for step in range(4):
    rows = torch.randn(256, 64)
    F.mse_loss(model(rows), rows).backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} validation {validate():.4f}")
