"""Train a deep classifier whose second step needs more memory than its first. `python oom_step_two.py --help`."""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """A stack of residual layers."""

    def __init__(self, hidden: int, layers: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU()) for _ in range(layers)
        )
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def draw_batch(args: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return made-up rows whose class is where their largest value lies."""
    rows = torch.randn(args.batch, args.hidden)
    labels = rows[:, : args.classes].argmax(dim=-1)
    return rows.to(device), labels.to(device)


def make_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    if args.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=1e-3)
    return torch.optim.SGD(model.parameters(), lr=1e-2)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    if args.memory_limit is not None and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(args.memory_limit * 2**20 / total)
    model = Classifier(args.hidden, args.layers, args.classes).to(device)
    optimizer = make_optimizer(model, args)

    for step in range(1, args.steps + 1):
        rows, labels = draw_batch(args, device)
        logits = model(rows)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        accuracy = (logits.argmax(dim=-1) == labels).float().mean().item()
        print(f"step {step} loss {loss.item():.6f} accuracy {accuracy:.3f}", flush=True)
        if not args.keep_outputs:
            del logits, loss


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--optimizer", choices=["adamw", "sgd"], default="adamw", help="sgd keeps no state")
    parser.add_argument(
        "--keep-outputs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave the last logits in their variable while the next step computes its own",
    )
    parser.add_argument("--memory-limit", type=int, metavar="MIB", help="memory that a CUDA device may use")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--classes", type=int, default=500, help="at most --hidden")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


if __name__ == "__main__":
    train(parse_args())
