"""Train a query encoder against the features of many candidates, encoded in chunks. `python fragmented.py --help`."""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def make_encoder(features: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, width))


@torch.no_grad()
def encode_chunks(encoder: nn.Module, candidates: Tensor, args: argparse.Namespace) -> list[Tensor]:
    """Return the features of the candidates, a tensor a chunk."""
    encoded = []
    for rows in candidates.split(args.chunk):
        encoded.append(encoder(rows))
    return encoded


@torch.no_grad()
def encode_into(buffer: Tensor, encoder: nn.Module, candidates: Tensor, args: argparse.Namespace) -> list[Tensor]:
    """Return the same, written into one buffer."""
    for rows, place in zip(candidates.split(args.chunk), buffer.split(args.chunk), strict=True):
        place.copy_(encoder(rows))
    return list(buffer.split(args.chunk))


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    queries = make_encoder(args.features, args.hidden, args.width).to(device)
    teacher = make_encoder(args.features, args.hidden, args.width).to(device)
    optimizer = torch.optim.AdamW(queries.parameters(), lr=1e-3)
    candidates = torch.randn(args.chunks * args.chunk, args.features).to(device)
    buffer = torch.empty(args.chunks * args.chunk, args.width, device=device) if args.preallocate else None

    for step in range(1, args.steps + 1):
        picked = torch.randint(len(candidates), (args.batch,)).to(device)
        rows = queries(candidates[picked])
        if buffer is None:
            encoded = encode_chunks(teacher, candidates, args)
        else:
            encoded = encode_into(buffer, teacher, candidates, args)
        scores = torch.cat([rows @ chunk.T for chunk in encoded], dim=1)
        loss = F.cross_entropy(scores, picked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        del encoded, scores
        print(f"step {step} loss {loss.item():.6f}", flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--preallocate", action="store_true", help="write the features of all chunks into one buffer")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=8192, help="candidates that are encoded at once")
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--width", type=int, default=200, help="features that the encoders return")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


if __name__ == "__main__":
    train(parse_args())
