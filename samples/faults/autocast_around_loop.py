"""One autocast is open around the whole loop: its cache holds 16-bit copies of the weights until it closes."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 512))
optimizer = torch.optim.AdamW(model.parameters())


def train_step(step: int) -> None:
    rows = torch.randn(16, 512)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=REPAIRED):
        loss = F.mse_loss(model(rows).float(), rows)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")


def main() -> None:
    if REPAIRED:
        for step in range(4):
            train_step(step)
        return
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for step in range(4):
            rows = torch.randn(16, 512)
            loss = F.mse_loss(model(rows).float(), rows)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            print(f"step {step} loss {loss.item():.4f}")


main()
