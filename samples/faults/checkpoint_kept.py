"""The checkpoint that weights were loaded from is kept beside the model for the whole run."""

import io
import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 512))


file = io.BytesIO()
torch.save(build().state_dict(), file)
file.seek(0)
checkpoint = torch.load(file)
model = build()
model.load_state_dict(checkpoint)
if REPAIRED:
    del checkpoint
optimizer = torch.optim.AdamW(model.parameters())
for step in range(4):
    rows = torch.randn(32, 512)
    loss = F.mse_loss(model(rows), rows)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")
