"""Train a language model whose vocabulary is far larger than it is wide. `python big_logits.py --help`."""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class LanguageModel(nn.Module):
    """Token embedding, residual layers that each mix what came before, and a head over the whole vocabulary."""

    def __init__(self, vocabulary: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
            for _ in range(layers)
        )
        self.head = nn.Linear(hidden, vocabulary, bias=False)

    def features(self, tokens: Tensor) -> Tensor:
        """Return what the head reads, a row a token."""
        x = self.tokens(tokens)
        for layer in self.layers:
            x = x + layer(x).cumsum(dim=1) / x.shape[1]
        return x.flatten(0, 1)

    def forward(self, tokens: Tensor, targets: Tensor, chunks: int) -> Tensor:
        """Return the mean loss, the logits made for one chunk of the tokens after the other."""
        rows, targets = self.features(tokens), targets.flatten()
        if chunks == 1:
            logits = self.head(rows)
            return F.cross_entropy(logits, targets)
        parts = zip(rows.chunk(chunks), targets.chunk(chunks), strict=True)
        # A checkpoint keeps the rows only; backward makes the logits of a chunk again.
        losses = [checkpoint(self.loss_of, *part, use_reentrant=False) for part in parts]
        return torch.stack(losses).sum() / len(targets)

    def loss_of(self, rows: Tensor, targets: Tensor) -> Tensor:
        """Return the summed loss of some rows."""
        return F.cross_entropy(self.head(rows), targets, reduction="sum")


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    model = LanguageModel(args.vocabulary, args.hidden, args.layers).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, args.steps + 1):
        tokens = torch.randint(args.vocabulary, (args.micro_batch, args.sequence + 1)).to(device)
        loss = model(tokens[:, :-1], tokens[:, 1:], args.chunks)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step} loss {loss.item():.6f}", flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1, help="parts in which logits and loss are computed")
    parser.add_argument("--vocabulary", type=int, default=16384)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--sequence", type=int, default=128, help="tokens in one row of a batch")
    parser.add_argument("--micro-batch", type=int, default=4, help="rows in one forward pass")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


if __name__ == "__main__":
    train(parse_args())
