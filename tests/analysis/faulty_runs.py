"""Small programs, each with one fault that people report, and its twin without: recorded one after the other.

`python faulty_runs.py FOLDER`, from the repository root, writes FOLDER/NAME.json and FOLDER/NAME-healthy.json for each
of `FAULTS`. All run in one process, since starting torch takes longer than training the models.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULTS: dict[str, Callable[..., None]] = {}
WIDTH = 64


def fault(program: Callable[..., None]) -> Callable[..., None]:
    """List a program under its name."""
    FAULTS[program.__name__] = program
    return program


def main(folder: Path) -> None:
    """Record every program, with its fault and without."""
    import torch

    import memtrace

    torch.set_num_threads(1)
    for name, program in FAULTS.items():
        for healthy in (False, True):
            torch.manual_seed(0)
            with memtrace.record(folder / f"{name}{'-healthy' if healthy else ''}.json"):
                program(torch, healthy)


def layers(torch: Any, number: int = 4) -> Any:
    """Return a small network whose tensors have several sizes."""
    inner = [torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh()) for _ in range(number)]
    return torch.nn.Sequential(*inner, torch.nn.Linear(WIDTH, 8))


def step(torch: Any, model: Any, optimizer: Any, rows: int = 32) -> None:
    """Train one step."""
    model(torch.randn(rows, WIDTH)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@fault
def checkpoint_kept(torch: Any, healthy: bool) -> None:
    """What was loaded stays beside the model that it was copied into."""
    loaded = {name: tensor.clone() for name, tensor in layers(torch).state_dict().items()}
    model = layers(torch)
    model.load_state_dict(loaded)
    if healthy:
        loaded.clear()
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(7):
        step(torch, model, optimizer)


@fault
def best_model_kept(torch: Any, healthy: bool) -> None:
    """A copy of the best model is made while it trains, and kept where it trains."""
    model, best = layers(torch), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for number in range(8):
        step(torch, model, optimizer)
        if number == 0 and not healthy:
            best = copy.deepcopy(model)
    del best


@fault
def rounds_kept(torch: Any, healthy: bool) -> None:
    """Each round of a cross-validation keeps its model and optimizer."""
    results = []
    for _ in range(3):
        model = layers(torch)
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(3):
            step(torch, model, optimizer)
        results.append(None if healthy else (model, optimizer))
        del model, optimizer


@fault
def base_not_frozen(torch: Any, healthy: bool) -> None:
    """Only the head is given to the optimizer, and the base still gets gradients."""
    model = layers(torch)
    if healthy:
        model[:-1].requires_grad_(False)
    optimizer = torch.optim.SGD(model[-1].parameters(), lr=0.01)
    for _ in range(6):
        step(torch, model, optimizer, rows=8)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
