"""Recomputation is on while `model.training` is, and nobody calls `train()` again after an evaluation."""

import sys

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)


class Model(nn.Module):
    """Layers that are computed again in backward while the model trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 1024), nn.GELU(), nn.Linear(1024, 64)) for _ in range(6)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.training else layer(x)
        return x


model = Model()
optimizer = torch.optim.AdamW(model.parameters())
for step in range(6):
    rows = torch.randn(512, 64)
    loss = F.mse_loss(model(rows), rows)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step == 2:
        model.eval()
        with torch.no_grad():
            model(rows)
        if REPAIRED:
            model.train()
    print(f"step {step} loss {loss.item():.4f}")
