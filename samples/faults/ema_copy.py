"""An average of the weights is kept on the device, a second copy of all parameters."""

import copy
import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, 512))
average = None if REPAIRED else copy.deepcopy(model).requires_grad_(False)
optimizer = torch.optim.AdamW(model.parameters())
for step in range(4):
    rows = torch.randn(32, 512)
    loss = F.mse_loss(model(rows), rows)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if average is not None:
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(weight, 0.01)
    print(f"step {step} loss {loss.item():.4f}")
