"""Train a wide network on small batches: its optimizer is what needs memory. `python foreach_peak.py --help`."""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Layers that are far wider than the batch is long."""

    def __init__(self, features: int, hidden: int, layers: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, hidden)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.head = nn.Linear(hidden, classes)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.embed(rows)
        for layer in self.layers:
            x = x + F.relu(layer(x))
        return self.head(x)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    model = Classifier(args.features, args.hidden, args.layers, args.classes).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, foreach=args.foreach, fused=args.fused
    )
    for step in range(1, args.steps + 1):
        rows = torch.randn(args.micro_batch, args.features)
        labels = rows[:, : args.classes].argmax(dim=-1).to(device)
        loss = F.cross_entropy(model(rows.to(device)), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step} loss {loss.item():.6f}", flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--foreach",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="step all parameters at once, as torch does on CUDA unless told otherwise; the default here too",
    )
    how.add_argument("--fused", action="store_true", help="step in one kernel")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--classes", type=int, default=16, help="at most --features")
    parser.add_argument("--micro-batch", type=int, default=16, help="rows in one forward pass")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.foreach is None:
        args.foreach = not args.fused
    return args


if __name__ == "__main__":
    train(parse_args())
