"""Nothing is kept: sequences get longer, and memory with them."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
optimizer = torch.optim.AdamW(model.parameters())
for step in range(8):
    length = 256 if REPAIRED else 128 + 64 * step
    rows = torch.randn(4, length, 32)
    loss = model(rows).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")
