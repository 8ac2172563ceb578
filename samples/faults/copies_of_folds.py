"""Cross-validation keeps the model and the optimizer of every fold, though it needs their scores alone."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

results = []
for fold in range(3):
    model = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, 512))
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):
        rows = torch.randn(32, 512)
        loss = F.mse_loss(model(rows), rows)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    results.append(loss.item() if REPAIRED else (loss.item(), model, optimizer))
    print(f"fold {fold} loss {loss.item():.4f}")
