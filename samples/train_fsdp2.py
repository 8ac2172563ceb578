"""Train the small GPT on several ranks, each of which holds a part of every parameter (FSDP2).

`torchrun --nproc-per-node 2 train_fsdp2.py` runs two ranks here, on the CPU (gloo) or with a GPU each (NCCL).
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from train_gpt import GPT, draw_batch


def train(args: argparse.Namespace) -> None:
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local_rank) if args.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    mesh = dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),), mesh_dim_names=("dp",))

    text = args.corpus.read_text(encoding="utf-8")
    characters = sorted(set(text))
    index = {character: number for number, character in enumerate(characters)}
    data = torch.tensor([index[character] for character in text])

    # The same weights on every rank, but other batches.
    torch.manual_seed(args.seed)
    model = GPT(len(characters), args).to(device)
    # A block is gathered as a whole just before it runs; what is left, the embeddings and the last norm, is one more.
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=args.reshard_after_forward)
    fully_shard(model, mesh=mesh, reshard_after_forward=args.reshard_after_forward)
    torch.manual_seed(args.seed + rank)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)

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
    parser.add_argument("--micro-batch", type=int, default=8, help="rows in one forward pass of one rank")
    parser.add_argument(
        "--reshard-after-forward",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="free gathered parameters after forward and gather them again for backward (ZeRO-3); "
        "or keep them until backward is done with them (ZeRO-2)",
    )
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--attention", choices=["sdpa", "explicit"], default="sdpa")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--checkpointing", action="store_true", help="recompute the blocks in the backward pass")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, default=Path(__file__).with_name("corpus.txt"), help="a text file")
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.hidden % args.heads:
        parser.error("--hidden must be a multiple of --heads")
    if "RANK" not in os.environ:
        parser.error("start it with torchrun, as in: torchrun --nproc-per-node 2 train_fsdp2.py")
    return args


if __name__ == "__main__":
    train(parse_args())
