"""Outputs of an epoch are kept on the device until its end, to compute one figure of all of them."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 2048))
optimizer = torch.optim.AdamW(model.parameters())
for epoch in range(2):
    outputs = []
    for _ in range(4):
        rows = torch.randn(256, 64)
        logits = model(rows)
        loss = F.cross_entropy(logits, torch.randint(2048, (256,)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        outputs.append(logits.argmax(dim=1) if REPAIRED else logits.detach())
        del logits
    print(f"epoch {epoch} loss {loss.item():.4f} classes {len(torch.cat(outputs).unique())}")
