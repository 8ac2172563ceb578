"""`backward(create_graph=True)` for a gradient penalty: the input, its gradient and its graph refer to each other."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

critic = nn.Sequential(nn.Linear(256, 512), nn.Tanh(), nn.Linear(512, 1))
optimizer = torch.optim.Adam(critic.parameters())
for step in range(8):
    rows = torch.randn(1024, 256, requires_grad=True)
    score = critic(rows).sum()
    if REPAIRED:
        (gradient,) = torch.autograd.grad(score, rows, create_graph=True)
    else:
        score.backward(create_graph=True)
        gradient = rows.grad
    penalty = (gradient.norm(dim=1) - 1).square().mean()
    optimizer.zero_grad()
    penalty.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} penalty {penalty.item():.4f}")
    del rows, score, gradient, penalty
