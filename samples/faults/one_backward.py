"""Losses of all micro-batches are added, and one backward follows: the graphs of all of them are alive at once."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(64, 1024), nn.GELU(), nn.Linear(1024, 64))
optimizer = torch.optim.AdamW(model.parameters())
for step in range(4):
    total = torch.zeros(())
    for _ in range(8):
        rows = torch.randn(256, 64)
        loss = F.mse_loss(model(rows), rows) / 8
        if REPAIRED:
            loss.backward()
        else:
            total = total + loss
    if not REPAIRED:
        total.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")
