"""Evaluation collects the outputs of all batches on the device before it computes one number of them."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 4096))
optimizer = torch.optim.AdamW(model.parameters())


@torch.no_grad()
def evaluate() -> float:
    model.eval()
    outputs, hits = [], 0
    for _ in range(12):
        logits = model(torch.randn(256, 64))
        if REPAIRED:
            hits += int((logits.argmax(dim=1) == 0).sum())
        else:
            outputs.append(logits)
    if outputs:
        hits = int((torch.cat(outputs).argmax(dim=1) == 0).sum())
    model.train()
    return hits / (12 * 256)


for step in range(4):
    rows = torch.randn(64, 64)
    F.cross_entropy(model(rows), torch.randint(4096, (64,))).backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} accuracy {evaluate():.4f}")
