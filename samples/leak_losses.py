"""Train a small classifier and note its loss on held-out data after every step. `python leak_losses.py --help`."""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Three hidden layers with a residual around each."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, hidden)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(3))
        self.head = nn.Linear(hidden, classes)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.embed(rows)
        for layer in self.layers:
            x = x + F.gelu(layer(x))
        return self.head(x)


def draw_batch(args: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return made-up rows whose class is where their largest part lies."""
    rows = torch.randn(args.batch, args.features)
    labels = rows.unflatten(1, (args.classes, -1)).sum(dim=-1).argmax(dim=-1)
    return rows.to(device), labels.to(device)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    model = Classifier(args.features, args.hidden, args.classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    held_out_rows, held_out_labels = draw_batch(args, device)

    held_out_losses = []
    for step in range(1, args.steps + 1):
        rows, labels = draw_batch(args, device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(rows), labels)
        loss.backward()
        optimizer.step()

        held_out_loss = F.cross_entropy(model(held_out_rows), held_out_labels)
        held_out_losses.append(held_out_loss.detach() if args.detach else held_out_loss)
        print(f"step {step} loss {loss.item():.6f}", flush=True)

    best = min(range(args.steps), key=lambda at: held_out_losses[at].item())
    print(f"best on held-out data: step {best + 1}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--detach", action="store_true", help="keep the losses without what they were computed from")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--features", type=int, default=80, help="a multiple of --classes")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


if __name__ == "__main__":
    train(parse_args())
