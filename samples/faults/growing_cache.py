"""A cache of masks has an entry for each length that was ever seen, and none is dropped."""

import sys

import torch
from torch import nn

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

model = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
optimizer = torch.optim.AdamW(model.parameters())
masks: dict[int, torch.Tensor] = {}


def mask_of(length: int) -> torch.Tensor:
    mask = masks.get(length)
    if mask is None:
        mask = torch.full((length, length), float("-inf")).triu(diagonal=1)
        if not REPAIRED:
            masks[length] = mask
    return mask


for step in range(8):
    length = 700 - step
    rows = torch.randn(1, length, 32)
    loss = model(rows, src_mask=mask_of(length)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")
