"""A small program that trains: what `make test-torches` records on every torch. An argument names the device."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

STEPS = 3


def train(
    before_backward: Callable[[torch.nn.Module, torch.optim.Optimizer], object] = lambda model, optimizer: None,
    after_step: Callable[[torch.nn.Module, torch.optim.Optimizer], object] = lambda model, optimizer: None,
    *,
    device: str = "cpu",
) -> None:
    """Train a model with parameters, buffers and optimizer states; a witness may look on."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 96), torch.nn.BatchNorm1d(96), torch.nn.GELU(), torch.nn.Linear(96, 10)
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        loss = model(torch.randn(16, 64, device=device)).square().mean()
        before_backward(model, optimizer)
        loss.backward()
        optimizer.step()
        after_step(model, optimizer)
        optimizer.zero_grad()


if __name__ == "__main__":
    train(device=sys.argv[1] if len(sys.argv) > 1 else "cpu")
