"""Sequences have all lengths, and one batch holds the longest: attention over it makes the peak of the run."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
optimizer = torch.optim.AdamW(model.parameters())
lengths = [64, 80, 72, 640, 64, 88]
for step, length in enumerate(lengths):
    length = min(length, 96) if REPAIRED else length
    rows = torch.randn(8, length, 32)
    loss = model(rows).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")
