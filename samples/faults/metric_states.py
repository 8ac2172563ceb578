"""A metric keeps every prediction until the epoch ends."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 1024))
optimizer = torch.optim.AdamW(model.parameters())


class Accuracy:
    """The share of predictions that are right, computed when it is asked for."""

    def __init__(self) -> None:
        self.predictions: list[torch.Tensor] = []
        self.hits = 0

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        if REPAIRED:
            self.hits += int((logits.argmax(dim=1) == labels).sum())
        else:
            self.predictions.append(logits.detach())


accuracy = Accuracy()
for step in range(8):
    rows, labels = torch.randn(512, 64), torch.randint(1024, (512,))
    logits = model(rows)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    accuracy.update(logits, labels)
    del logits
    print(f"step {step} loss {loss.item():.4f}")
