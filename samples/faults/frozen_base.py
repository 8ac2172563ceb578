"""A frozen base still gets gradients: the optimizer leaves it out, but nothing says that it needs none."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

base = nn.Sequential(*(nn.Sequential(nn.Linear(512, 512), nn.GELU()) for _ in range(8)))
head = nn.Linear(512, 8)
base.requires_grad_(not REPAIRED)
optimizer = torch.optim.AdamW(head.parameters())
for step in range(4):
    rows, labels = torch.randn(32, 512), torch.randint(8, (32,))
    loss = F.cross_entropy(head(base(rows)), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")
