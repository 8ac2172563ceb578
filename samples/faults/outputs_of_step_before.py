"""The outputs of a step are in their variable until the next forward has made new ones: for a while both are there."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 4096))
optimizer = torch.optim.AdamW(model.parameters())
for step in range(5):
    rows = torch.randn(512, 64)
    logits = model(rows)
    loss = F.cross_entropy(logits, torch.randint(4096, (512,)))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")
    if REPAIRED:
        del logits, loss
