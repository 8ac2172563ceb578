"""Train a small GPT on several ranks, each of which computes a part of every layer (tensor parallelism).

`torchrun --nproc-per-node 2 train_tp.py` runs two ranks here, on the CPU (gloo) or with a GPU each (NCCL).
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn import functional as F
from train_gpt import draw_batch


class Attention(nn.Module):
    """Causal self-attention. Its heads are counted by the columns that the projections have on this rank."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.head_size = hidden // heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        projections = (self.query(x), self.key(x), self.value(x))
        query, key, value = (one.unflatten(-1, (-1, self.head_size)).transpose(1, 2) for one in projections)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """One transformer layer: attention and a two-layer MLP, each behind a norm and around a residual."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden)
        self.attention = Attention(hidden, heads)
        self.norm2 = nn.LayerNorm(hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Embedding(nn.Module):
    """Tokens and positions."""

    def __init__(self, vocabulary: int, sequence: int, hidden: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, hidden)
        self.positions = nn.Embedding(sequence, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))


def make_model(vocabulary: int, args: argparse.Namespace) -> nn.Sequential:
    blocks = [Block(args.hidden, args.heads) for _ in range(args.layers)]
    return nn.Sequential(
        Embedding(vocabulary, args.sequence, args.hidden),
        *blocks,
        nn.LayerNorm(args.hidden),
        nn.Linear(args.hidden, vocabulary, bias=False),
    )


def parallelize(model: nn.Sequential, mesh: DeviceMesh, *, sequence_parallel: bool) -> None:
    """Divide the linear layers by columns, then by rows; between them, on request, the sequence."""
    between = Shard(1) if sequence_parallel else Replicate()
    plan = {
        "attention.query": ColwiseParallel(),
        "attention.key": ColwiseParallel(),
        "attention.value": ColwiseParallel(),
        "attention.out": RowwiseParallel(output_layouts=between),
        "mlp.0": ColwiseParallel(),
        "mlp.2": RowwiseParallel(output_layouts=between),
    }
    if sequence_parallel:
        whole = {"input_layouts": Shard(1), "desired_input_layouts": Replicate()}
        plan |= {name: PrepareModuleInput(**whole) for name in ("attention", "mlp")}
        plan |= {name: SequenceParallel() for name in ("norm1", "norm2")}
        split = PrepareModuleOutput(output_layouts=Replicate(), desired_output_layouts=Shard(1))
        parallelize_module(model[0], mesh, split)
        parallelize_module(model[-2], mesh, SequenceParallel())
    for block in model[1:-2]:
        parallelize_module(block, mesh, plan)
    parallelize_module(model[-1], mesh, ColwiseParallel(input_layouts=between, output_layouts=Replicate()))


def train(args: argparse.Namespace) -> None:
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local_rank) if args.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),), mesh_dim_names=("tp",))

    text = args.corpus.read_text(encoding="utf-8")
    characters = sorted(set(text))
    index = {character: number for number, character in enumerate(characters)}
    data = torch.tensor([index[character] for character in text])

    # The same weights and the same batches on every rank: each computes a part of the same step.
    torch.manual_seed(args.seed)
    model = make_model(len(characters), args).to(device)
    parallelize(model, mesh, sequence_parallel=args.sequence_parallel)
    # Some parameters are divided and some are not; the optimizer cannot take both in one call.
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, foreach=False)

    for step in range(1, args.steps + 1):
        inputs, targets = draw_batch(data, args, device)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if rank == 0:
            print(f"step {step} loss {loss.item():.6f}", flush=True)
    dist.destroy_process_group()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--sequence", type=int, default=128, help="characters in one row of a batch")
    parser.add_argument("--micro-batch", type=int, default=8, help="rows in one forward pass")
    parser.add_argument("--sequence-parallel", action="store_true", help="divide the sequence where layers are whole")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, default=Path(__file__).with_name("corpus.txt"), help="a text file")
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    if "RANK" not in os.environ:
        parser.error("start it with torchrun, as in: torchrun --nproc-per-node 2 train_tp.py")
    ranks = int(os.environ["WORLD_SIZE"])
    if args.hidden % args.heads or args.heads % ranks or args.sequence % ranks:
        parser.error("--hidden must be a multiple of --heads, and --heads and --sequence of the number of ranks")
    return args


if __name__ == "__main__":
    train(parse_args())
