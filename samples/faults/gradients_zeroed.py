"""Gradients are set to zero and not dropped, so that they live through the next forward."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 512))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
for step in range(4):
    rows = torch.randn(512, 512)
    optimizer.zero_grad(set_to_none=REPAIRED)
    loss = F.mse_loss(model(rows), rows)
    loss.backward()
    optimizer.step()
    print(f"step {step} loss {loss.item():.4f}")
