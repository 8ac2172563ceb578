"""Train the small GPT on several ranks, each with its own part of the batch and a whole copy of the model.

`torchrun --nproc-per-node 2 train_ddp.py` runs two ranks here, on the CPU (gloo) or with a GPU each (NCCL).
"""

import argparse
import os
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from train_gpt import GPT, draw_batch


def train(args: argparse.Namespace) -> None:
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local_rank) if args.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    text = args.corpus.read_text(encoding="utf-8")
    characters = sorted(set(text))
    index = {character: number for number, character in enumerate(characters)}
    data = torch.tensor([index[character] for character in text])

    # The same weights on every rank, but other batches.
    torch.manual_seed(args.seed)
    model = DistributedDataParallel(
        GPT(len(characters), args).to(device),
        device_ids=[local_rank] if device.type == "cuda" else None,
        bucket_cap_mb=args.bucket_mb,
        gradient_as_bucket_view=args.bucket_views,
    )
    torch.manual_seed(args.seed + rank)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)

    for step in range(1, args.steps + 1):
        step_loss = torch.zeros((), device=device)
        for micro_batch in range(args.accumulate):
            inputs, targets = draw_batch(data, args, device)
            is_last = micro_batch == args.accumulate - 1
            # Gradients add up on each rank by itself; only those of the last micro-batch need to be reduced.
            with nullcontext() if is_last or args.always_sync else model.no_sync():
                loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()) / args.accumulate
                loss.backward()
            step_loss += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        if rank == 0:
            print(f"step {step} loss {step_loss.item():.6f}", flush=True)
    dist.destroy_process_group()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--sequence", type=int, default=128, help="characters in one row of a batch")
    parser.add_argument("--micro-batch", type=int, default=8, help="rows in one forward pass of one rank")
    parser.add_argument("--accumulate", type=int, default=1, metavar="N", help="forward and backward passes in a step")
    sync = parser.add_mutually_exclusive_group()
    sync.add_argument(
        "--no-sync",
        dest="always_sync",
        action="store_false",
        default=False,
        help="reduce gradients in the last micro-batch of a step only; this is so by itself",
    )
    sync.add_argument("--always-sync", action="store_true", help="reduce gradients in every micro-batch")
    parser.add_argument("--bucket-mb", type=float, default=25, metavar="MB", help="size to which buckets are filled")
    parser.add_argument("--bucket-views", action="store_true", help="gradients are views of buckets")
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
        parser.error("start it with torchrun, as in: torchrun --nproc-per-node 2 train_ddp.py")
    return args


if __name__ == "__main__":
    train(parse_args())
