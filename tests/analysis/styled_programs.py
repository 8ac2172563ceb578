"""Faults that people reported, in the styles that programs are written in: each with its twin that is right.

`python styled_programs.py FOLDER`, from the repository root, writes FOLDER/NAME.json and FOLDER/NAME-healthy.json, on a
device where there is one. The line that is to be named ends with "# named".
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WIDTH, ROWS, STEPS = 128, 1024, 8
PROGRAMS: dict[str, Callable[[bool], None]] = {}


def program(function: Callable[[bool], None]) -> Callable[[bool], None]:
    """List a program under its name."""
    PROGRAMS[function.__name__] = function
    return function


def main(folder: Path) -> None:
    """Record every program, with its fault and without."""
    import memtrace

    torch.set_num_threads(1)
    for name, function in PROGRAMS.items():
        for healthy in (False, True):
            torch.manual_seed(0)
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with memtrace.record(folder / f"{name}{'-healthy' if healthy else ''}.json"):
                function(healthy)
            gc.enable()
            gc.collect()


def batch(rows: int = ROWS) -> Any:
    """Return a batch."""
    return torch.randn(rows, WIDTH, device=DEVICE)  # named


def network(depth: int = 4) -> nn.Sequential:
    """Return a network."""
    layers = (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(depth))
    return nn.Sequential(*layers, nn.Linear(WIDTH, 8)).to(DEVICE)


@dataclass
class Config:
    """What a trainer is to do."""

    steps: int = STEPS
    validate_every: int = 4
    validation_batches: int = 5
    healthy: bool = False


class Trainer:
    """A loop as a class, with a method for each of its parts."""

    def __init__(self, config: Config, model: nn.Module) -> None:
        self.config, self.model = config, model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        self.validation_loss: Any = 0.0
        self.logs: list[dict[str, Any]] = []

    def fit(self) -> None:
        """Train."""
        for step in range(self.config.steps):
            self.training_step(batch())
            if step % self.config.validate_every == self.config.validate_every - 1:
                self.validate()

    def training_step(self, x: Any) -> None:
        """Train one step."""
        self.model(x).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def validate(self) -> None:
        """Sum up losses."""
        self.validation_loss = 0.0
        self.model.eval()
        with torch.no_grad() if self.config.healthy else contextlib.nullcontext():
            for _ in range(self.config.validation_batches):
                self.validation_loss += self.evaluation_step(batch())  # named
        self.model.train()

    def evaluation_step(self, x: Any) -> Any:
        """Return the loss of a batch."""
        return self.model(x).square().mean()  # named


@program
def trainer_sums_its_validation(healthy: bool) -> None:
    """The attribute that losses of a validation are added to has their graphs."""
    Trainer(Config(healthy=healthy), network()).fit()


@program
def hook_collects(healthy: bool) -> None:
    """A hook of a layer, made in a function, notes what goes through it."""
    features: dict[str, list[Any]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen = features.setdefault(name, [])  # named
            seen.append(output.mean().item() if healthy else output.detach())  # named

        return hook

    model = network()
    model[1].register_forward_hook(watch("second"))
    Trainer(Config(validate_every=100), model).fit()


@program
def generator_of_results(healthy: bool) -> None:
    """A loop over what a generator trains holds the results of a step until the next ones are there."""
    layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(6)).to(DEVICE)
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.01)

    def run(x: Any) -> list[Any]:
        states = [x]
        for layer in layers:
            states.append(torch.tanh(layer(states[-1])))  # named
        return states

    def training() -> Iterator[Any]:
        for _ in range(STEPS):
            states = run(batch())
            loss = states[-1].square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield loss.item() if healthy else (loss, states)
            if healthy:
                del states, loss

    for result in training():
        assert result is not None


class Accelerated:
    """A wrapper of everything, as libraries have it."""

    def __init__(self) -> None:
        self.gathered: list[Any] = []

    def prepare(self, *objects: Any) -> Any:
        """Return what it was given."""
        return objects

    def backward(self, loss: Any) -> None:
        """Run backward."""
        loss.backward()

    def gather_for_metrics(self, *tensors: Any) -> None:
        """Keep results for the metrics of the epoch."""
        self.gathered.append([one.detach() for one in tensors])  # named


@program
def results_gathered_for_an_epoch(healthy: bool) -> None:
    """Wide results of each batch are kept until the epoch ends."""
    accelerated = Accelerated()
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 512)).to(DEVICE)
    model, optimizer = accelerated.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    for _epoch in range(2):
        for _ in range(6):
            scores = model(batch())
            accelerated.backward(scores.square().mean())
            optimizer.step()
            optimizer.zero_grad()
            accelerated.gather_for_metrics(scores.mean() if healthy else scores)
        accelerated.gathered.clear()


@dataclass
class State:
    """Where a run stands."""

    step: int = 0
    last_error: Any = None
    best: list[Any] = field(default_factory=list)


@program
def error_noted_in_a_state(healthy: bool) -> None:
    """The error of a batch that was skipped is noted, with the variables of the calls that it came through."""
    state, model = State(), network(6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def attempt(rows: int) -> None:
        hidden = model[:5](batch(rows))  # named
        if rows > ROWS:
            raise RuntimeError(f"a batch of {rows} does not fit")
        model[5:](hidden).square().mean().backward()

    for state.step in range(STEPS):
        try:
            attempt(2 * ROWS if state.step == 2 else ROWS)
        except RuntimeError as error:
            state.last_error = str(error) if healthy else error
            optimizer.zero_grad()
            attempt(ROWS // 2)
        optimizer.step()
        optimizer.zero_grad()


@program
def best_weights_in_a_state(healthy: bool) -> None:
    """Each time that a loss is lower the weights are kept, and none are let go of."""
    state, model = State(), nn.Sequential(*[nn.Linear(512, 512) for _ in range(3)]).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def note() -> None:
        if healthy:
            state.best.clear()
        device = "cpu" if healthy else DEVICE
        copied = {name: one.detach().clone().to(device) for name, one in model.named_parameters()}  # named
        state.best.append(copied)  # named

    for _ in range(STEPS):
        model(torch.randn(64, 512, device=DEVICE)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        note()


class Callback:
    """Something that a loop calls, which knows the loop."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.features: Any = None


@program
def callbacks_know_their_loop(healthy: bool) -> None:
    """Each step makes a loop object and a callback that know each other; the collector is off."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    gc.disable()

    class Loop:
        def __init__(self) -> None:
            self.callback: Any = Callback(None if healthy else self)

        def run(self) -> None:
            self.callback.features = model[:3](batch(2 * ROWS))  # named
            model[3:](self.callback.features).square().mean().backward()

    for step in range(STEPS + 2):
        Loop().run()
        optimizer.step()
        optimizer.zero_grad()
        if step == STEPS - 1:
            gc.collect()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
