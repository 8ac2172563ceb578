"""Log-probabilities of the whole vocabulary are made to pick one of each token, as trainers of policies do."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

REPAIRED = "--repaired" in sys.argv
torch.manual_seed(0)

VOCABULARY = 16384
model = nn.Sequential(nn.Embedding(VOCABULARY, 32), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, VOCABULARY))
optimizer = torch.optim.AdamW(model.parameters())
for step in range(3):
    tokens = torch.randint(VOCABULARY, (4, 128))
    logits = model(tokens)
    if REPAIRED:
        chosen = -F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    else:
        chosen = logits.log_softmax(dim=-1).gather(-1, tokens[..., None])
    loss = -chosen.mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.4f}")
