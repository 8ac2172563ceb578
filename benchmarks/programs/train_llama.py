"""Train a model shaped like Llama 3 on random tokens: on one GPU, or sharded over ranks with FSDP2.

For predictions of sizes that no machine here could hold: `memtrace predict -- python train_llama.py 70b --on one`.
"""

import argparse
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Size:
    layers: int
    hidden: int
    heads: int
    key_heads: int
    inner: int
    words: int = 128256


SIZES = {
    "1b": Size(16, 2048, 32, 8, 8192),
    "8b": Size(32, 4096, 32, 8, 14336),
    "70b": Size(80, 8192, 64, 8, 28672),
}


class Block(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.width = size.hidden // size.heads
        shared = size.key_heads * self.width
        self.attention_norm, self.norm = nn.RMSNorm(size.hidden), nn.RMSNorm(size.hidden)
        self.query, self.out = (nn.Linear(size.hidden, size.hidden, bias=False) for _ in range(2))
        self.key, self.value = (nn.Linear(size.hidden, shared, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(size.hidden, size.inner, bias=False) for _ in range(2))
        self.down = nn.Linear(size.inner, size.hidden, bias=False)

    def forward(self, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        batch, rows, hidden = x.shape
        y = self.attention_norm(x)
        query, key, value = (
            project(y).view(batch, rows, -1, self.width).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        query, key = turned(query, turns), turned(key, turns)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, rows, hidden))
        y = self.norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self, size: Size, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.tokens = nn.Embedding(size.words, size.hidden)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.hidden)
        self.head = nn.Linear(size.hidden, size.words, bias=False)

    def forward(self, tokens: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens)
        for block in self.blocks:
            x = checkpoint(block, x, turns, use_reentrant=False) if self.checkpointing else block(x, turns)
        return self.head(self.norm(x))


def turns_of(rows: int, width: int) -> torch.Tensor:
    """Return by how much each pair of elements of each row is turned, as complex numbers."""
    angles = torch.outer(torch.arange(rows), 10000 ** -(torch.arange(0, width, 2) / width)).cuda()
    return torch.polar(torch.ones_like(angles), angles)


def turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)


def build(args: argparse.Namespace) -> Llama:
    """Return the model on the GPU, whole or this rank's part of it."""
    if args.on == "one":
        torch.set_default_dtype(torch.bfloat16)
        model = Llama(SIZES[args.size], checkpointing=True).cuda()
        torch.set_default_dtype(torch.float32)
        return model
    dist.init_process_group("nccl")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    with torch.device("meta" if args.on == "ranks-from-meta" else "cpu"):
        model = Llama(SIZES[args.size], checkpointing=True)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    if args.on == "ranks-from-meta":
        model.to_empty(device="cuda")
        with torch.no_grad():
            for parameter in model.parameters():
                nn.init.normal_(parameter, std=0.02)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--on", choices=("one", "ranks", "ranks-from-meta"), default="one")
    parser.add_argument("--sequence", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    size, model = SIZES[args.size], build(args)
    turns = turns_of(args.sequence, size.hidden // size.heads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for step in range(1, args.steps + 1):
        tokens = torch.randint(0, size.words, (1, args.sequence + 1), device="cuda")
        logits = model(tokens[:, :-1], turns).flatten(0, 1)
        loss = F.cross_entropy(logits.float(), tokens[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step} loss {loss.item():.6f}", flush=True)


if __name__ == "__main__":
    main()
