"""Small programs, each with one fault that people report, and its twin without: recorded one after the other.

`python faulty_runs.py FOLDER`, from the repository root, writes FOLDER/NAME.json and FOLDER/NAME-healthy.json for each
of `FAULTS`. All run in one process, since starting torch takes longer than training the models.
"""

from __future__ import annotations

import copy
import functools
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


@fault
def log_probabilities_of_all_words(torch: Any, healthy: bool) -> None:
    """The log-probability of one word a row is taken out of those of all words."""
    from torch.utils.checkpoint import checkpoint

    body, head = layers(torch), torch.nn.Linear(8, 3000, bias=False)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.01)

    def chosen(rows: Any, words: Any) -> Any:
        return head(rows).log_softmax(-1).gather(-1, words[:, None])[:, 0]

    for _ in range(5):
        rows, words = body(torch.randn(128, WIDTH)), torch.randint(3000, (128,))
        parts = zip(rows.chunk(8), words.chunk(8), strict=True) if healthy else [(rows, words)]
        found = [checkpoint(chosen, *part, use_reentrant=False) if healthy else chosen(*part) for part in parts]
        torch.cat(found).sum().neg().backward()
        optimizer.step()
        optimizer.zero_grad()
        del rows, words, parts, found


@fault
def autocast_around_the_loop(torch: Any, healthy: bool) -> None:
    """Autocast is entered once, around all steps, and so keeps what it cast."""
    import contextlib

    model = layers(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    cast = functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    with contextlib.nullcontext() if healthy else cast():
        for _ in range(6):
            with cast() if healthy else contextlib.nullcontext():
                loss = model(torch.randn(4, WIDTH)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            del loss


@fault
def autocast_around_each_epoch(torch: Any, healthy: bool) -> None:
    """Autocast is entered once an epoch, around all its steps, and the second epoch is not recorded from its start."""
    import contextlib

    model = layers(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    cast = functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    for _ in range(2):
        with contextlib.nullcontext() if healthy else cast():
            for _ in range(5):
                with cast() if healthy else contextlib.nullcontext():
                    loss = model(torch.randn(4, WIDTH)).square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                del loss


@fault
def checkpointing_off_after_evaluation(torch: Any, healthy: bool) -> None:
    """Layers are checkpointed in training mode only, and nobody calls train() after the evaluation."""
    from torch.utils.checkpoint import checkpoint

    class Net(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(layers(torch, 2) for _ in range(3))
            self.back = torch.nn.ModuleList(torch.nn.Linear(8, WIDTH) for _ in range(3))

        def forward(self, rows: Any) -> Any:
            for block, back in zip(self.blocks, self.back, strict=True):
                rows = back(checkpoint(block, rows, use_reentrant=False) if self.training else block(rows))
            return rows

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for number in range(7):
        step(torch, model, optimizer, rows=512)
        if number == 2:
            model.eval()
            with torch.no_grad():
                model(torch.randn(8, WIDTH))
            if healthy:
                model.train()


@fault
def one_backward(torch: Any, healthy: bool) -> None:
    """The losses of all micro-batches are added up and sent back at once."""
    model = layers(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(4):
        total = 0.0
        for _ in range(6):
            loss = model(torch.randn(128, WIDTH)).square().mean() / 6
            if healthy:
                loss.backward()
            else:
                total = total + loss
            del loss
        if not healthy:
            total.backward()
        optimizer.step()
        optimizer.zero_grad()
        del total


@fault
def flat_copy_of_gradients(torch: Any, healthy: bool) -> None:
    """All gradients are copied into one buffer, to be changed at once."""
    model = layers(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(4):
        model(torch.randn(4, WIDTH)).square().mean().backward()
        if healthy:
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)
        else:
            flat = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()]).mul_(0.5)
            parts = flat.split([parameter.numel() for parameter in model.parameters()])
            for parameter, part in zip(model.parameters(), parts, strict=True):
                parameter.grad.copy_(part.view_as(parameter.grad))
            del flat, parts, part
        optimizer.step()
        optimizer.zero_grad()


@fault
def gradients_compared_with_those_before(torch: Any, healthy: bool) -> None:
    """A flat copy of all gradients is kept, to be compared with that of the next step."""
    model, before = layers(torch), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(8):
        model(torch.randn(4, WIDTH)).square().mean().backward()
        if not healthy:
            flat = torch.nn.utils.parameters_to_vector([parameter.grad for parameter in model.parameters()])
            if before is not None:
                torch.nn.functional.cosine_similarity(flat, before, dim=0)
            before = flat
        optimizer.step()
        optimizer.zero_grad()


@fault
def gradients_set_to_zero_by_hand(torch: Any, healthy: bool) -> None:
    """A loop without an optimizer keeps each gradient, as zeros."""
    model = layers(torch)
    for _ in range(8):
        model(torch.randn(64, WIDTH)).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.grad, alpha=0.01)
                if healthy:
                    parameter.grad = None
                else:
                    parameter.grad.zero_()


@fault
def gradients_returned(torch: Any, healthy: bool) -> None:
    """What `autograd.grad` returned is in its variable until it is called again."""
    model = layers(torch)
    parameters = list(model.parameters())
    for _ in range(8):
        loss = model(torch.randn(64, WIDTH)).square().mean()
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=0.01)
        del loss, gradient
        if healthy:
            del gradients


@fault
def losses_only_looked_at(torch: Any, healthy: bool) -> None:
    """A list adds up losses of several kinds, of which one is sent back; the graphs of the others stay with it."""
    model = layers(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def train() -> None:
        losses = [0, 0]
        for part in range(6):
            with torch.set_grad_enabled(part % 2 == 0 or not healthy):
                loss = model(torch.randn(128, WIDTH)).square().mean()
            losses[part % 2] += loss
        losses[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(6):
        train()


@fault
def output_without_loss(torch: Any, healthy: bool) -> None:
    """One of two heads has no loss, and its output is a variable until the next step."""
    body, head, other = layers(torch), torch.nn.Linear(8, 8), layers(torch)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.01)
    for _ in range(6):
        batch = torch.randn(256, WIDTH)
        out = head(body(batch))
        with torch.set_grad_enabled(not healthy):
            beside = other(batch)
        out.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        del out
    del beside


@fault
def evaluation_with_graph_late(torch: Any, healthy: bool) -> None:
    """Evaluation comes after many steps, of which no frames are kept any more."""
    model = layers(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(7):
        step(torch, model, optimizer)
    model.eval()
    losses = []
    for _ in range(6):
        with torch.set_grad_enabled(not healthy):
            losses.append(model(torch.randn(256, WIDTH)).square().mean())
    model.train()
    step(torch, model, optimizer)


@fault
def pairs_of_many_objects(torch: Any, healthy: bool) -> None:
    """One batch has many objects, each of which is compared with each; what the model is given is as always."""
    model = layers(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for number in range(10):
        boxes = torch.rand(90 if number != 5 or healthy else 600, 4)
        loss = model(torch.randn(32, WIDTH)).square().mean()
        pairs = torch.sub(boxes[:, None], boxes[None]).abs().sum(-1)
        (loss + pairs.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        del boxes, pairs, loss


def train_on(torch: Any, lengths: list[int]) -> None:
    """Train on batches of so many rows."""
    model = layers(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for rows in lengths:
        step(torch, model, optimizer, rows)


@fault
def one_long_batch(torch: Any, healthy: bool) -> None:
    """One batch is much longer than the others."""
    train_on(torch, [150, 140, 160 if healthy else 900, 150, 145, 130, 155])


@fault
def growing_batches(torch: Any, healthy: bool) -> None:
    """Batches are sorted by length, the shortest first."""
    train_on(torch, sorted((200 + 90 * number for number in range(7)), reverse=healthy))


def evaluate_after_training(torch: Any, model: Any, evaluate: Callable[[], object]) -> None:
    """Train a few steps, and evaluate after each second one."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for number in range(8):
        step(torch, model, optimizer)
        if number % 2:
            model.eval()
            evaluate()
            model.train()


@fault
def evaluation_with_graph(torch: Any, healthy: bool) -> None:
    """Losses of the evaluation are summed up with all that they were computed from."""
    model = layers(torch)

    def evaluate() -> object:
        total = 0.0
        for _ in range(6):
            with torch.set_grad_enabled(not healthy):
                total = total + model(torch.randn(256, WIDTH)).square().mean()
        return total

    evaluate_after_training(torch, model, evaluate)


@fault
def evaluation_outputs_kept(torch: Any, healthy: bool) -> None:
    """What each batch of the evaluation comes to is kept on the device, and put together in the end."""
    model = layers(torch)

    def evaluate() -> object:
        found = []
        for _ in range(20):
            with torch.no_grad():
                outputs = model(torch.randn(512, WIDTH))
            found.append(outputs.sum() if healthy else outputs)
            del outputs
        return torch.stack(found) if healthy else torch.cat(found)

    evaluate_after_training(torch, model, evaluate)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
