"""Each step makes an object that refers to itself: only the garbage collector frees what it holds, late."""

import gc
import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(64, 2048), nn.GELU(), nn.Linear(2048, 64))
optimizer = torch.optim.AdamW(model.parameters())
gc.disable()  # As training programs do, for even steps.


class Batch:
    """What a step knows of its batch."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows
        self.hidden = model[:2](rows)
        self.loss_of = self.loss if not REPAIRED else None

    def loss(self) -> torch.Tensor:
        return F.mse_loss(model[2](self.hidden), self.rows)


for step in range(10):
    batch = Batch(torch.randn(512, 64))
    loss = batch.loss()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")
    del batch, loss
    if step % 5 == 4:
        gc.collect()
