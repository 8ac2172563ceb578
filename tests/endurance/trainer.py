"""A program that trains as fast as it can, and says after each step, in one write, how many have ended."""

from __future__ import annotations

import os
import sys

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
optimizer = torch.optim.Adam(model.parameters())
progress = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
os.write(progress, f"{os.getpid()}\n".encode())
for step in range(1, int(sys.argv[2]) + 1):
    optimizer.zero_grad()
    model(torch.randn(8, 16)).square().mean().backward()
    optimizer.step()
    os.write(progress, f"{step}\n".encode())
