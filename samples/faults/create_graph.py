"""`backward(create_graph=True)` makes parameters and gradients refer to each other, and so keeps each step's graph."""

import gc
import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(64, 1024), nn.Tanh(), nn.Linear(1024, 64))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
gc.disable()
for step in range(6):
    rows = torch.randn(512, 64)
    loss = F.mse_loss(model(rows), rows)
    if REPAIRED:
        gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        norm = sum(one.square().sum() for one in gradients)
        (loss + 1e-3 * norm).backward()
        del gradients, norm
    else:
        loss.backward(create_graph=True)
        norm = sum(one.grad.square().sum() for one in model.parameters())
        (1e-3 * norm).backward()
        del norm
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")
    del loss
