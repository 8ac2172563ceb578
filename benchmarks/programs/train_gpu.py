"""Train one of several models on a GPU, in one of the ways whose memory a prediction must tell. Needs torch alone.

    python train_gpu.py --model llama --size full --batch 4 --optimizer adamw --precision bf16 --attention sdpa

It knows nothing of memtrace. On a GPU it prints after each step, as a line of JSON, what torch says the step needed.
`--capacity` leaves torch that many bytes of the GPU. `--size reduced --device cpu` is the same program in small.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "samples"))

from train_gpt import GPT
from train_resnet import ResNet

SIZES: dict[str, dict[str, dict[str, int]]] = {
    "gpt": {
        "full": {"layers": 6, "hidden": 768, "heads": 12, "sequence": 1024, "vocabulary": 50257},
        "reduced": {"layers": 2, "hidden": 64, "heads": 4, "sequence": 64, "vocabulary": 503},
    },
    "llama": {
        "full": {"layers": 6, "hidden": 1024, "heads": 16, "groups": 4, "sequence": 1024, "vocabulary": 32000},
        "reduced": {"layers": 2, "hidden": 64, "heads": 4, "groups": 2, "sequence": 64, "vocabulary": 503},
    },
    "bert": {
        "full": {"layers": 6, "hidden": 768, "heads": 12, "sequence": 512, "vocabulary": 30522},
        "reduced": {"layers": 2, "hidden": 64, "heads": 4, "sequence": 64, "vocabulary": 503},
    },
    "vit": {
        "full": {"layers": 6, "hidden": 768, "heads": 12, "image": 224, "patch": 16, "vocabulary": 1000},
        "reduced": {"layers": 2, "hidden": 64, "heads": 4, "image": 32, "patch": 8, "vocabulary": 10},
    },
    "resnet": {
        "full": {"width": 64, "image": 64, "vocabulary": 1000},
        "reduced": {"width": 8, "image": 16, "vocabulary": 10},
    },
}
OPTIMIZERS = ("adamw", "adamw-loop", "adamw-fused", "sgd", "sgd-momentum", "rmsprop", "adagrad")
PRECISIONS = ("fp32", "bf16", "fp16", "pure-bf16")
ATTENTION = {"sdpa": None, "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
ATTENTION |= {"math": SDPBackend.MATH, "explicit": None}
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Llama(nn.Module):
    """Rotary positions, RMS norms, gated MLPs, grouped keys and values, and a head of its own."""

    def __init__(self, size: Any, args: argparse.Namespace) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.hidden)
        self.blocks = nn.ModuleList(LlamaBlock(size, args) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.hidden)
        self.head = nn.Linear(size.hidden, size.vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class LlamaBlock(nn.Module):
    """One layer."""

    def __init__(self, size: Any, args: argparse.Namespace) -> None:
        super().__init__()
        self.heads, self.groups, self.width = size.heads, size.groups, size.hidden // size.heads
        self.explicit = args.attention == "explicit"
        self.norm1, self.norm2 = nn.RMSNorm(size.hidden), nn.RMSNorm(size.hidden)
        self.query = nn.Linear(size.hidden, size.hidden, bias=False)
        self.keys = nn.Linear(size.hidden, 2 * self.groups * self.width, bias=False)
        self.out = nn.Linear(size.hidden, size.hidden, bias=False)
        self.gate, self.up = (nn.Linear(size.hidden, 3 * size.hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * size.hidden, size.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self.attend(self.norm1(x)))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))

    def attend(self, x: Tensor) -> Tensor:
        rows = (*x.shape[:2], -1, self.width)
        query = rotated(self.query(x).view(rows).transpose(1, 2))
        key, value = (part.view(rows).transpose(1, 2) for part in self.keys(x).chunk(2, dim=-1))
        # Repeated and not `enable_gqa`, which not every kernel takes.
        key, value = (one.repeat_interleave(self.heads // self.groups, dim=1) for one in (rotated(key), value))
        if self.explicit:
            causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
            scores = (query @ key.transpose(-2, -1) / self.width**0.5).masked_fill(~causal, float("-inf"))
            mixed = scores.softmax(dim=-1) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).flatten(2)


def rotated(x: Tensor) -> Tensor:
    """Return queries or keys turned by their positions."""
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, device=x.device) / half)
    angles = torch.outer(torch.arange(x.shape[2], device=x.device), frequencies)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, left * sin + right * cos), dim=-1)


class Encoder(nn.Module):
    """torch's own encoder layers over tokens with padding (BERT), or over patches of an image (ViT)."""

    def __init__(self, size: Any, args: argparse.Namespace) -> None:
        super().__init__()
        hidden, self.is_image = size.hidden, hasattr(size, "patch")
        if self.is_image:
            self.embed: nn.Module = nn.Conv2d(3, hidden, size.patch, stride=size.patch)
        else:
            self.embed = nn.Embedding(size.vocabulary, hidden)
        length = (size.image // size.patch) ** 2 if self.is_image else size.sequence
        self.positions = nn.Parameter(torch.zeros(length, hidden))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden, size.heads, 4 * hidden, args.dropout, "gelu", batch_first=True, norm_first=self.is_image
            )
            for _ in range(size.layers)
        )
        self.head = nn.Linear(hidden, size.vocabulary)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.is_image:
            x, padding = self.embed(inputs).flatten(2).transpose(1, 2) + self.positions, None
        else:
            x, padding = self.embed(inputs) + self.positions, inputs == 0
        for block in self.blocks:
            x = block(x, src_key_padding_mask=padding)
        return self.head(x.mean(dim=1) if self.is_image else x)


class Checkpointed(nn.Module):
    """A layer whose activations are computed again in the backward pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        return checkpoint(self.module, x, use_reentrant=False, **options)


def make_model(args: argparse.Namespace, size: Any) -> Any:
    """Return the model, with checkpointing where it is wanted."""
    if args.model == "gpt":
        options = {"attention": args.attention, "dropout": args.dropout, "checkpointing": args.checkpointing}
        return GPT(size.vocabulary, SimpleNamespace(**vars(size), **options))
    if args.model == "resnet":
        model: Any = ResNet(size.width, size.vocabulary)
    else:
        model = (Llama if args.model == "llama" else Encoder)(size, args)
    if args.checkpointing:
        wrapped = map(Checkpointed, model.blocks)
        model.blocks = nn.Sequential(*wrapped) if args.model == "resnet" else nn.ModuleList(wrapped)
    return model


def make_optimizer(model: nn.Module, name: str) -> torch.optim.Optimizer:
    """Return the optimizer of this name, as torch makes it where the name says no more."""
    kind, _, rest = name.partition("-")
    if kind == "adamw":
        options: dict[str, Any] = {"loop": {"foreach": False}, "fused": {"fused": True}}.get(rest, {})
        return torch.optim.AdamW(model.parameters(), **options)
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9 if rest else 0.0)
    return {"rmsprop": torch.optim.RMSprop, "adagrad": torch.optim.Adagrad}[kind](model.parameters())


def draw_batch(args: argparse.Namespace, size: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return random inputs and targets."""
    if hasattr(size, "image"):
        inputs, targets = (
            torch.randn(args.batch, 3, size.image, size.image),
            torch.randint(size.vocabulary, (args.batch,)),
        )
    else:
        inputs, targets = (torch.randint(size.vocabulary, (args.batch, size.sequence)) for _ in range(2))
    return inputs.to(device), targets.to(device)


def train(args: argparse.Namespace) -> None:
    """Run the steps."""
    torch.manual_seed(0)
    device, size = torch.device(args.device), SimpleNamespace(**SIZES[args.model][args.size])
    model = make_model(args, size).to(device)
    if args.precision == "pure-bf16":
        model.to(torch.bfloat16)
    optimizer = make_optimizer(model, args.optimizer)
    dtype = AUTOCAST.get(args.precision)
    scaler = torch.amp.GradScaler(device.type, enabled=args.precision == "fp16")
    for step in range(1, args.steps + 1):
        for _ in range(args.accumulation):
            inputs, targets = draw_batch(args, size, device)
            if args.precision == "pure-bf16" and inputs.is_floating_point():
                inputs = inputs.to(torch.bfloat16)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                loss = F.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())
            scaler.scale(loss / args.accumulation).backward()
        if args.clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if device.type == "cuda":
            say(step)


def say(step: int) -> None:
    """Print what torch says of a step, and begin to count the next one."""
    free, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.max_memory_reserved()
    line = {"step": step, "peak_allocated_bytes": torch.cuda.max_memory_allocated(), "max_reserved_bytes": reserved}
    line["beside_bytes"] = total - free - torch.cuda.memory_reserved()
    print(json.dumps(line), flush=True)
    torch.cuda.reset_peak_memory_stats()


def parse_args() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(SIZES), default="gpt")
    parser.add_argument("--size", choices=("full", "reduced"), default="full")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="bf16 and fp16 are autocast")
    parser.add_argument("--attention", choices=tuple(ATTENTION), default="sdpa", help="a kernel, or written out")
    parser.add_argument("--dropout", type=float, default=0.0, help="not in llama and resnet")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--clip", action="store_true", help="clip the norm of the gradients")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--capacity", type=int, help="bytes of the GPU that torch may take")
    return parser.parse_args()


def main() -> None:
    """Train."""
    args = parse_args()
    if args.capacity is not None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(args.capacity / total, 1.0))
    kernel = ATTENTION[args.attention]
    with contextlib.nullcontext() if kernel is None else sdpa_kernel(kernel):
        train(args)


if __name__ == "__main__":
    main()
