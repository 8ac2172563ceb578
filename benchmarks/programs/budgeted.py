"""A GPT that trains for some steps, compiled with an activation memory budget of torch, or as it is.

python benchmarks/programs/budgeted.py [--budget 0.5]: prints the processor time of its quickest step.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

WIDTH, LAYERS, TOKENS, BATCH, WORDS = 256, 6, 128, 8, 2000


class Block(nn.Module):
    """Attention and a perceptron, written out, so that a partitioner sees each operator."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mixed, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.mixed(self.before(x)).chunk(3, dim=-1)
        weights = torch.softmax(query @ key.transpose(-1, -2) / WIDTH**0.5, dim=-1)
        x = x + self.out(weights @ value)
        return x + self.down(nn.functional.gelu(self.up(self.between(x))))


class Model(nn.Module):
    """The whole of it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))

    def forward(self, words: Tensor) -> Tensor:
        x = self.table(words)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = run = Model()
    if args.budget is not None:
        import torch._functorch.config as config

        config.activation_memory_budget = args.budget
        run = torch.compile(model, backend="aot_eager_decomp_partition")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seconds = []
    for _ in range(args.steps):
        words = torch.randint(WORDS, (BATCH, TOKENS))
        began = time.process_time()
        loss = nn.functional.cross_entropy(run(words).flatten(0, 1), words.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - began)
        print(f"loss {loss.item():.6f}")
        del loss
    print(f"seconds {min(seconds[1:]):.6f}")


if __name__ == "__main__":
    main()
