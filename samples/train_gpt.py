"""Train a small character-level GPT. `python train_gpt.py --help` lists the options; the defaults run on a laptop."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Attention(nn.Module):
    """Causal self-attention, as one fused call or written out."""

    def __init__(self, hidden: int, heads: int, sequence: int, dropout: float, *, explicit: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.explicit = explicit
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        if explicit:
            mask = torch.ones(sequence, sequence, dtype=torch.bool).tril()
            self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, sequence, hidden = x.shape
        heads = (batch, sequence, self.heads, hidden // self.heads)
        query, key, value = (part.view(heads).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        if self.explicit:
            scores = query @ key.transpose(-2, -1) / (hidden // self.heads) ** 0.5
            scores = scores.masked_fill(~self.mask[:sequence, :sequence], float("-inf"))
            mixed = F.dropout(scores.softmax(dim=-1), dropout) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, sequence, hidden))


class Block(nn.Module):
    """One transformer layer: attention and a two-layer MLP, each behind a norm and around a residual."""

    def __init__(self, hidden: int, heads: int, sequence: int, dropout: float, *, explicit: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden)
        self.attention = Attention(hidden, heads, sequence, dropout, explicit=explicit)
        self.norm2 = nn.LayerNorm(hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Token and position embeddings, a stack of blocks, and a head that shares its weight with the embedding."""

    def __init__(self, vocabulary: int, args: argparse.Namespace) -> None:
        super().__init__()
        self.checkpointing = args.checkpointing
        self.tokens = nn.Embedding(vocabulary, args.hidden)
        self.positions = nn.Embedding(args.sequence, args.hidden)
        self.dropout = nn.Dropout(args.dropout)
        self.blocks = nn.ModuleList(
            Block(args.hidden, args.heads, args.sequence, args.dropout, explicit=args.attention == "explicit")
            for _ in range(args.layers)
        )
        self.norm = nn.LayerNorm(args.hidden)
        self.head = nn.Linear(args.hidden, vocabulary, bias=False)
        self.apply(self.initialise)
        self.head.weight = self.tokens.weight

    @staticmethod
    def initialise(module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(positions))
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x)
        return self.head(self.norm(x))


def make_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    options = {"lr": args.lr, "foreach": args.foreach}
    if args.fused is not None:
        options["fused"] = args.fused
    if args.optimizer == "sgd-momentum":
        return torch.optim.SGD(model.parameters(), momentum=0.9, **options)
    kinds = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "adagrad": torch.optim.Adagrad,
        "rmsprop": torch.optim.RMSprop,
        "sgd": torch.optim.SGD,
    }
    return kinds[args.optimizer](model.parameters(), **options)


def draw_batch(data: Tensor, args: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return random stretches of the text, and the same stretches one character later."""
    starts = torch.randint(len(data) - args.sequence - 1, (args.micro_batch,))
    rows = torch.stack([data[start : start + args.sequence + 1] for start in starts.tolist()]).to(device)
    return rows[:, :-1], rows[:, 1:]


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    text = args.corpus.read_text(encoding="utf-8")
    characters = sorted(set(text))
    index = {character: number for number, character in enumerate(characters)}
    data = torch.tensor([index[character] for character in text])

    model = GPT(len(characters), args).to(device)
    optimizer = make_optimizer(model, args)
    autocast_dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[args.precision]
    scaler = torch.amp.GradScaler(device.type, enabled=args.precision == "fp16")

    for step in range(1, args.steps + 1):
        step_loss = 0.0
        for _ in range(args.accumulation):
            inputs, targets = draw_batch(data, args, device)
            with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
                logits = model(inputs)
                loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten()) / args.accumulation
            scaler.scale(loss).backward()
            step_loss += loss.item()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        print(f"step {step} loss {step_loss:.6f}", flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--sequence", type=int, default=128, help="characters in one row of a batch")
    parser.add_argument("--micro-batch", type=int, default=8, help="rows in one forward pass")
    parser.add_argument("--accumulation", type=int, default=1, help="forward and backward passes in one step")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32", help="bf16, fp16: autocast")
    parser.add_argument(
        "--optimizer", choices=["adamw", "adam", "adagrad", "rmsprop", "sgd", "sgd-momentum"], default="adamw"
    )
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--foreach", action=argparse.BooleanOptionalAction, help="torch's choice if not given")
    parser.add_argument("--fused", action=argparse.BooleanOptionalAction, help="torch's choice if not given")
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
    return args


if __name__ == "__main__":
    train(parse_args())
