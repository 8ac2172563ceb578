"""Small programs that keep what they should let go of, each with its twin that does not: recorded one after the other.

`python keeping_programs.py FOLDER`, from the repository root, writes FOLDER/NAME.json and FOLDER/NAME-healthy.json.
"""

from __future__ import annotations

import functools
import gc
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAMS: dict[str, Callable[..., None]] = {}
WIDTH, ROWS, STEPS = 120, 250, 8


def program(function: Callable[..., None]) -> Callable[..., None]:
    """List a program under its name."""
    PROGRAMS[function.__name__] = function
    return function


def main(folder: Path) -> None:
    """Record every program, with its fault and without."""
    import torch

    import memtrace

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name, function in PROGRAMS.items():
        for healthy in (False, True):
            torch.manual_seed(0)
            with memtrace.record(folder / f"{name}{'-healthy' if healthy else ''}.json"):
                function(torch, healthy)
            gc.enable()
            gc.collect()


def network(torch: Any) -> tuple[Any, Any]:
    """Return a network and its optimizer."""
    net = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, 8))
    return net, torch.optim.SGD(net.parameters(), lr=0.01)


def train(torch: Any, net: Any, optimizer: Any, rows: int = ROWS) -> None:
    """Train one step."""
    net(torch.randn(rows, WIDTH)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def wide_network(torch: Any) -> tuple[Any, Any]:
    """Return a network whose outputs are as wide as its layers, and its optimizer."""
    net = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, WIDTH))
    return net, torch.optim.SGD(net.parameters(), lr=0.01)


def step_with_output(torch: Any, net: Any, optimizer: Any) -> Any:
    """Train one step and return what the network made."""
    made = net(torch.randn(ROWS, WIDTH))
    made.square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return made.detach()


@program
def list_of_predictions(torch: Any, healthy: bool) -> None:
    """A metric notes each prediction."""
    net, optimizer = network(torch)
    predictions = []
    for _ in range(STEPS):
        train(torch, net, optimizer)
        made = net(torch.randn(ROWS, WIDTH)).detach().repeat(1, 16)
        predictions.append(made.mean().item() if healthy else made)


@program
def exception_kept(torch: Any, healthy: bool) -> None:
    """What failed is kept, and with it the variables of the call."""
    net, optimizer = network(torch)
    failures: list[Any] = []

    def attempt() -> None:
        scratch = torch.randn(16 * ROWS, WIDTH)
        raise RuntimeError(f"too large: {scratch.shape}")

    for step in range(STEPS):
        # The peak is in the last step.
        train(torch, net, optimizer, 8 * ROWS if step == STEPS - 1 else ROWS)
        if step == 1:
            try:
                attempt()
            except RuntimeError as error:
                failures.append(str(error) if healthy else error)


@program
def masks_cached(torch: Any, healthy: bool) -> None:
    """A cache without bounds, of something that is new each time."""
    net, optimizer = network(torch)

    def mask(size: int) -> Any:
        return torch.ones(size, size).triu(1)

    cached = mask if healthy else functools.cache(mask)
    for step in range(STEPS):
        cached(256 + step)
        train(torch, net, optimizer)


@program
def cycles(torch: Any, healthy: bool) -> None:
    """Each step makes an object that refers to itself, and nobody collects."""
    net, optimizer = network(torch)
    gc.disable()

    class Result:
        def __init__(self) -> None:
            self.features = torch.randn(8 * ROWS, WIDTH)
            self.again: Any = None if healthy else (lambda: self.features)

    for step in range(STEPS + 2):
        Result()
        train(torch, net, optimizer)
        if step == STEPS - 1:
            gc.collect()


@program
def outputs_kept(torch: Any, healthy: bool) -> None:
    """What a model returned is still there in the next forward."""
    net, optimizer = network(torch)
    for _ in range(STEPS):
        x = torch.randn(ROWS, WIDTH)
        hidden = [net[0](x).tanh() for _ in range(12)]
        net[2](sum(hidden)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if healthy:
            del hidden


@program
def worst_batch(torch: Any, healthy: bool) -> None:
    """One batch in the middle of many is much larger."""
    net, optimizer = network(torch)
    for step in range(40):
        rows = 16 * ROWS if step == 28 and not healthy else ROWS
        net(torch.randn(rows, WIDTH)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@program
def window_of_losses(torch: Any, healthy: bool) -> None:
    """The last losses, each with its graph, and an average that leads to the graphs of all."""
    net, optimizer = network(torch)
    window: list[Any] = []
    for _ in range(3 * STEPS):
        loss = net(torch.randn(ROWS, WIDTH)).square().mean()
        window.append(loss.item() if healthy else loss)
        window = window[-STEPS:]
        average = sum(window) / len(window)
        loss.backward(retain_graph=not healthy)
        optimizer.step()
        optimizer.zero_grad()
    print(f"{float(average):.3f}", file=sys.stderr)


@program
def outputs_of_an_epoch(torch: Any, healthy: bool) -> None:
    """Outputs are put together anew in each step until the epoch ends."""
    net, optimizer = wide_network(torch)
    for _ in range(3):
        seen, right = torch.zeros(0, WIDTH), 0
        for _ in range(STEPS):
            made = step_with_output(torch, net, optimizer)
            if healthy:
                right += int((made.argmax(1) == 0).sum())
            else:
                seen = torch.cat([seen, made])
        print(right + len(seen), file=sys.stderr)


@program
def outputs_by_step(torch: Any, healthy: bool) -> None:
    """Outputs are kept by their step until the epoch ends."""
    net, optimizer = wide_network(torch)
    for _ in range(3):
        outputs = {}
        for step in range(STEPS):
            made = step_with_output(torch, net, optimizer)
            outputs[step] = int((made.argmax(1) == 0).sum()) if healthy else made


@program
def outputs_gathered(torch: Any, healthy: bool) -> None:
    """Outputs are gathered, and put together after the epoch: the peak is where nothing of its step is yet."""
    net, optimizer = wide_network(torch)
    for _ in range(3):
        gathered = []
        for _ in range(STEPS - 2):
            made = step_with_output(torch, net, optimizer)
            gathered.append(made.argmax(1) if healthy else made.softmax(1).repeat(1, 4))
        print(torch.cat(gathered).shape, file=sys.stderr)


@program
def graph_of_gradients(torch: Any, healthy: bool) -> None:
    """A penalty of a gradient whose graph leads back to it. Last: what it leaks is there in those after it."""
    net, optimizer = network(torch)
    for _ in range(STEPS):
        x = torch.randn(ROWS, WIDTH, requires_grad=True)
        score = net(x).square().sum()
        if healthy:
            (gradient,) = torch.autograd.grad(score, x, create_graph=True)
        else:
            score.backward(create_graph=True)
            gradient = x.grad
        penalty = gradient.square().sum()
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
        optimizer.zero_grad()
        del score, gradient, penalty, x


if __name__ == "__main__":
    main(Path(sys.argv[1]))
