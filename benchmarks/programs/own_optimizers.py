"""AdamW as people write it themselves, in ways that differ in memory: its moments are made in the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class AdamW(torch.optim.Optimizer):
    """AdamW whose moments are new tensors in each step, as in courses; or updated in place.

    `how` is "anew" or "in-place", or "replaced": new moments, and a new tensor for each parameter too.
    """

    def __init__(self, parameters: Iterable[Tensor], how: str, lr: float = 1e-3) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01})
        self.how = how

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Update all parameters."""
        for group in self.param_groups:
            (first, second), rate = group["betas"], group["lr"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state, gradient = self.state[parameter], parameter.grad
                if not state:
                    state.update(t=0, m=torch.zeros_like(parameter), v=torch.zeros_like(parameter))
                state["t"] += 1
                if self.how == "in-place":
                    state["m"].mul_(first).add_(gradient, alpha=1 - first)
                    state["v"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
                else:
                    state["m"] = first * state["m"] + (1 - first) * gradient
                    state["v"] = second * state["v"] + (1 - second) * gradient**2
                scaled = rate * (1 - second ** state["t"]) ** 0.5 / (1 - first ** state["t"])
                change = scaled * state["m"] / (state["v"].sqrt() + group["eps"])
                if self.how == "replaced":
                    parameter.data = parameter.data - change
                    parameter.data = parameter.data - rate * group["weight_decay"] * parameter.data
                else:
                    parameter.data -= change
                    parameter.data -= rate * group["weight_decay"] * parameter.data
