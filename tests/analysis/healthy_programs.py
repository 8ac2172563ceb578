"""Small programs in which nothing is wrong, of many kinds, that keep tensors by design: recorded one after the other.

`python healthy_programs.py FOLDER`, from the repository root, writes FOLDER/NAME.json for each of `HEALTHY`. All run in
one process, since starting torch takes longer than training the models.
"""

from __future__ import annotations

import collections
import copy
import functools
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HEALTHY: dict[str, Callable[[Any], None]] = {}
WIDTH, STEPS = 64, 14


def healthy(program: Callable[[Any], None]) -> Callable[[Any], None]:
    """List a program under its name."""
    HEALTHY[program.__name__] = program
    return program


def main(folder: Path) -> None:
    """Record every program."""
    import torch

    import memtrace

    torch.set_num_threads(1)
    for name, program in HEALTHY.items():
        torch.manual_seed(0)
        random.seed(0)
        with memtrace.record(folder / f"{name}.json"):
            program(torch)


def network(torch: Any, out: int = 16) -> Any:
    """Return a small network whose tensors have several sizes."""
    inner = [torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh()) for _ in range(3)]
    return torch.nn.Sequential(*inner, torch.nn.Linear(WIDTH, out))


def update(optimizer: Any, loss: Any) -> None:
    """Train one step."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@healthy
def replay_buffer(torch: Any) -> None:
    """Transitions of many steps before, no more than a number."""
    net, held = network(torch, 4), collections.deque[Any](maxlen=40)
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(STEPS):
        held.extend((torch.randn(8 * WIDTH), torch.randn(())) for _ in range(8))
        chosen = random.sample(held, 8)
        states = torch.stack([state.view(8, WIDTH)[0] for state, _ in chosen])
        update(optimizer, (net(states).max(1).values - torch.stack([one for _, one in chosen])).square().mean())


@healthy
def queue_of_keys(torch: Any) -> None:
    """Contrastive learning: a second encoder follows the first, and what it made of the last batches is compared."""
    query, queue = network(torch, WIDTH), collections.deque[Any](maxlen=4)
    key = copy.deepcopy(query).requires_grad_(False)
    optimizer = torch.optim.AdamW(query.parameters())
    for _ in range(STEPS):
        x = torch.randn(48, WIDTH)
        with torch.no_grad():
            for mine, its in zip(query.parameters(), key.parameters(), strict=True):
                its.lerp_(mine, 0.01)
            made = key(x)
        scores = query(x) @ torch.cat([made, *queue]).t()
        queue.append(made)
        update(optimizer, torch.nn.functional.cross_entropy(scores, torch.arange(len(x))))
        del x, made, scores


@healthy
def average_of_weights(torch: Any) -> None:
    """An average of the weights, a model that nothing calls: the program is seen to write to it."""
    net = network(torch)
    average, optimizer = copy.deepcopy(net).requires_grad_(False), torch.optim.AdamW(net.parameters())
    for _ in range(STEPS):
        update(optimizer, net(torch.randn(32, WIDTH)).square().mean())
        with torch.no_grad():
            for mine, its in zip(net.parameters(), average.parameters(), strict=True):
                its.lerp_(mine, 0.01)


@healthy
def average_by_torch(torch: Any) -> None:
    """An average of the weights that torch keeps, which 16 bits would be too few for."""
    net = network(torch)
    average, optimizer = torch.optim.swa_utils.AveragedModel(net), torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(STEPS):
        update(optimizer, net(torch.randn(32, WIDTH)).square().mean())
        average.update_parameters(net)


@healthy
def momentum_by_hand(torch: Any) -> None:
    """A momentum that the program keeps beside an optimizer of torch."""
    net = network(torch)
    optimizer, momenta = torch.optim.SGD(net.parameters(), lr=0.01), {}
    for _ in range(STEPS):
        net(torch.randn(32, WIDTH)).square().mean().backward()
        for parameter in net.parameters():
            momentum = momenta.setdefault(parameter, torch.zeros_like(parameter))
            momentum.data.mul_(0.9).add_(parameter.grad)
            parameter.grad.copy_(momentum)
        optimizer.step()
        optimizer.zero_grad()


@healthy
def slow_weights(torch: Any) -> None:
    """Lookahead: every few steps the weights are set half way back."""
    net = network(torch)
    optimizer, slow = torch.optim.Adam(net.parameters()), [one.detach().clone() for one in net.parameters()]
    for number in range(STEPS):
        update(optimizer, net(torch.randn(32, WIDTH)).square().mean())
        if number % 3 == 2:
            with torch.no_grad():
                for its, mine in zip(slow, net.parameters(), strict=True):
                    its.lerp_(mine, 0.5)
                    mine.copy_(its)


@healthy
def cache_of_fixed_size(torch: Any) -> None:
    """Masks of a few lengths, made when they are first needed."""

    @functools.lru_cache(maxsize=2)
    def mask(length: int) -> Any:
        return torch.ones(length, length).tril()

    net = network(torch, WIDTH)
    optimizer = torch.optim.Adam(net.parameters())
    for number in range(STEPS):
        length = 64 + 8 * (number % 2)
        made = net(torch.randn(length, WIDTH))
        update(optimizer, (mask(length) @ made).square().mean())
        del made


@healthy
def accumulated(torch: Any) -> None:
    """Four micro-batches in a step, with a running loss without graph."""
    net = network(torch)
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(STEPS):
        total = torch.zeros(())
        for _ in range(4):
            loss = net(torch.randn(32, WIDTH)).square().mean() / 4
            loss.backward()
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()


@healthy
def penalty_of_gradients(torch: Any) -> None:
    """A gradient of a gradient."""
    net = network(torch, 1)
    optimizer = torch.optim.Adam(net.parameters())

    def loss() -> Any:
        x = torch.randn(32, WIDTH, requires_grad=True)
        score = net(x)
        (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return score.mean() + (slope.norm(dim=1) - 1).square().mean()

    for _ in range(STEPS):
        update(optimizer, loss())


@healthy
def keys_and_values_of_a_generation(torch: Any) -> None:
    """Between steps, tokens are made one by one, beside the keys and values of those before."""
    nn, layers = torch.nn, 3
    embed, head = nn.Embedding(32, WIDTH), nn.Linear(WIDTH, 32)
    blocks = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(layers))
    model = nn.ModuleList([embed, blocks, head])
    optimizer = torch.optim.AdamW(model.parameters())

    def run(tokens: Any, cache: list[Any] | None = None) -> Any:
        h = embed(tokens)
        for number, block in enumerate(blocks):
            q, k, v = block(h).chunk(3, -1)
            if cache is not None:
                if cache[number] is not None:
                    k, v = (torch.cat([old, new], 1) for old, new in zip(cache[number], (k, v), strict=True))
                cache[number] = k, v
            h = h + nn.functional.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        return head(h)

    def generate() -> None:
        model.eval()
        cache: list[Any] = [None] * layers
        tokens = torch.zeros(16, 1, dtype=torch.long)
        with torch.no_grad():
            for _ in range(16):
                tokens = run(tokens, cache)[:, -1:].argmax(-1)
        model.train()

    def loss() -> Any:
        tokens = torch.randint(0, 32, (2, 17))
        return nn.functional.cross_entropy(run(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    for number in range(STEPS):
        update(optimizer, loss())
        if number % 4 == 0:
            generate()


@healthy
def taught_by_another(torch: Any) -> None:
    """A teacher that is larger, and does not learn."""
    teacher = torch.nn.Sequential(network(torch, WIDTH), network(torch)).requires_grad_(False)
    student = network(torch)
    optimizer = torch.optim.AdamW(student.parameters())
    for _ in range(STEPS):
        x = torch.randn(32, WIDTH)
        with torch.no_grad():
            wanted = teacher(x)
        update(optimizer, (student(x) - wanted).square().mean())


@healthy
def state_carried_on(torch: Any) -> None:
    """The hidden state of a recurrent network goes on from batch to batch, without its graph."""
    net = torch.nn.LSTM(16, WIDTH, 2, batch_first=True)
    optimizer, state = torch.optim.Adam(net.parameters()), None
    for _ in range(STEPS):
        made, state = net(torch.randn(16, 10, 16), state)
        state = tuple(one.detach() for one in state)
        update(optimizer, made.square().mean())
        del made


@healthy
def rate_found_first(torch: Any) -> None:
    """Some steps at rising rates, after which weights and states are put back."""
    net = network(torch)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-5, momentum=0.9)
    saved = {name: one.clone() for name, one in net.state_dict().items()}
    losses = []
    for number in range(2 * STEPS):
        if number == STEPS:
            net.load_state_dict(saved)
            saved.clear()
        loss = net(torch.randn(32, WIDTH)).square().mean()
        losses.append(loss.item())
        update(optimizer, loss)


@healthy
def scaled_in_16_bits(torch: Any) -> None:
    """Autocast in each step, a scaler of gradients, clipping."""
    net = network(torch)
    optimizer, scaler = torch.optim.AdamW(net.parameters()), torch.amp.GradScaler("cpu")
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(torch.randn(32, WIDTH)).float().square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


@healthy
def batches_fetched_ahead(torch: Any) -> None:
    """Two batches are ready before they are needed."""

    def batches() -> Iterator[Any]:
        ready = collections.deque[Any]()
        for _ in range(STEPS):
            ready.append(torch.randn(128, WIDTH))
            if len(ready) > 2:
                yield ready.popleft()

    net = network(torch)
    optimizer = torch.optim.AdamW(net.parameters())
    for x in batches():
        update(optimizer, net(x).square().mean())


@healthy
def numbers_noted(torch: Any) -> None:
    """Losses as numbers, accuracies as small tensors without graph."""
    net, losses, right = network(torch), [], []
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(3 * STEPS):
        y = torch.randint(0, 16, (32,))
        made = net(torch.randn(32, WIDTH))
        loss = torch.nn.functional.cross_entropy(made, y)
        losses.append(loss.item())
        right.append((made.argmax(-1) == y).float().mean())
        del made
        update(optimizer, loss)


@healthy
def features_hooked(torch: Any) -> None:
    """A hook notes what a layer made last, and a module its own last output."""
    net, last = network(torch), {}
    net[1].register_forward_hook(lambda module, given, made: last.update(features=made.detach()))
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(STEPS):
        update(optimizer, net(torch.randn(64, WIDTH)).square().mean())


@healthy
def twice_as_large(torch: Any) -> None:
    """Memories of fixed size, of tensors twice as large as the weights."""
    net = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(4)))
    memory = [torch.zeros(2 * WIDTH, WIDTH) for _ in range(8)]
    optimizer = torch.optim.AdamW(net.parameters())
    for number in range(STEPS):
        update(optimizer, net(memory[number % 8] + torch.randn(2 * WIDTH, WIDTH)).square().mean())


@healthy
def held_out_loss_detached(torch: Any) -> None:
    """The loss on held-out data, whose variable has its graph until the next step."""
    net, losses = network(torch), []
    optimizer, held_out = torch.optim.AdamW(net.parameters()), torch.randn(64, WIDTH)
    for _ in range(STEPS):
        update(optimizer, net(torch.randn(64, WIDTH)).square().mean())
        held_out_loss = net(held_out).square().mean()
        losses.append(held_out_loss.detach())


@healthy
def implicit_gradient(torch: Any) -> None:
    """A layer in equilibrium: its hook solves for the gradient, by backwards through a graph of its own."""
    layer, head = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh()), torch.nn.Linear(WIDTH, 4)
    optimizer = torch.optim.SGD([*layer.parameters(), *head.parameters()], lr=0.01)
    for _ in range(STEPS):
        found = layer(torch.randn(256, WIDTH))
        start = found.detach().requires_grad_()
        again = layer(start)

        def solve(gradient: Any, again: Any = again, start: Any = start) -> Any:
            return torch.autograd.grad(again, start, gradient, retain_graph=True)[0] + gradient

        found.register_hook(solve)
        update(optimizer, head(found).square().mean())
        del found, start, again, solve


@healthy
def sent_back_late(torch: Any) -> None:
    """Log-probabilities of an episode, which end in one backward."""
    policy, value = network(torch), network(torch)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.01) for one in (policy, value)]
    episode: list[Any] = []
    for number in range(STEPS):
        episode.append(policy(torch.randn(8, WIDTH)).log_softmax(-1)[:, 0].mean())
        update(optimizers[1], value(torch.randn(256, WIDTH)).square().mean())
        if number in (5, STEPS - 3):
            update(optimizers[0], -sum(episode))
            episode.clear()


@healthy
def lengths_in_buckets(torch: Any) -> None:
    """Each fourth batch is from the bucket of the long samples."""
    net = network(torch)
    optimizer = torch.optim.AdamW(net.parameters())
    for number in range(STEPS):
        update(optimizer, net(torch.randn(256 if number % 4 == 3 else 64, WIDTH)).square().mean())


@healthy
def buffer_that_fills(torch: Any) -> None:
    """Transitions of all steps, until there are as many as there may be."""
    net, held = network(torch, 4), collections.deque[Any](maxlen=1000)
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(STEPS):
        held.extend(torch.randn(8 * WIDTH) for _ in range(8))
        chosen = torch.stack([state.view(8, WIDTH)[0] for state in random.sample(held, 8)])
        update(optimizer, net(chosen).square().mean())


@healthy
def one_by_hand_beside_an_optimizer(torch: Any) -> None:
    """A model is trained through `.data`, which torch does not count, beside one that an optimizer has."""
    body, head = network(torch), torch.nn.Linear(16, 4)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
    for _ in range(STEPS):
        update(optimizer, head(body(torch.randn(32, WIDTH))).square().mean())
        for parameter in body.parameters():
            parameter.data -= 0.01 * parameter.grad.data
            parameter.grad = None


@healthy
def layers_without_modules(torch: Any) -> None:
    """Weights in a list, trained by hand, beside a data set of the size of their gradients in 16 bits."""
    shapes = ((30, 200), (200,), (200, 27), (27,))
    weights = [torch.randn(*shape).mul_(0.1).requires_grad_() for shape in shapes]
    inputs, targets = torch.randn(192, 30), torch.randint(27, (192,))
    assert 0.98 < 2 * inputs.nbytes / sum(one.nbytes for one in weights) < 1.02
    for _ in range(STEPS):
        chosen = torch.randint(len(inputs), (32,))
        hidden = (inputs[chosen] @ weights[0] + weights[1]).tanh()
        torch.nn.functional.cross_entropy(hidden @ weights[2] + weights[3], targets[chosen]).backward()
        for weight in weights:
            weight.data -= 0.1 * weight.grad
            weight.grad = None


@healthy
def tree_of_a_sentence(torch: Any) -> None:
    """A module that calls itself."""

    class Tree(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.leaf, self.join = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(2 * WIDTH, WIDTH)

        def forward(self, given: Any) -> Any:
            if isinstance(given, torch.Tensor):
                return self.leaf(given)
            return self.join(torch.cat([self(one) for one in given], -1)).tanh()

    tree = Tree()
    optimizer = torch.optim.SGD(tree.parameters(), lr=0.01)
    for _ in range(STEPS):
        a, b, c, d = torch.randn(4, 32, WIDTH)
        update(optimizer, tree((((a, b), c), d)).square().mean())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
