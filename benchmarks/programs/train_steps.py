"""A training loop with every choice that changes what stays in memory between steps: run by `steady_state.py`.

The models are those of `samples/`, and classes of `transformers` with small random weights. Like the samples, it knows
nothing of memtrace.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "samples"))

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adafactor": torch.optim.Adafactor,
}
IMPLEMENTATIONS: dict[str, dict[str, bool]] = {
    "default": {},
    "for-loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


def make_model(args: argparse.Namespace) -> nn.Module:
    """Return the model."""
    if args.model == "gpt":
        from train_gpt import GPT

        return GPT(args.vocabulary, args)
    if args.model == "resnet":
        from train_resnet import ResNet

        return ResNet(args.hidden, 10)
    import transformers

    if args.model == "hf-gpt2":
        config = transformers.GPT2Config(
            vocab_size=args.vocabulary,
            n_positions=args.sequence,
            n_embd=args.hidden,
            n_layer=args.layers,
            n_head=args.heads,
            use_cache=False,
        )
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.hidden,
        intermediate_size=3 * args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=max(args.heads // 2, 1),
        max_position_embeddings=args.sequence,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config)


def draw_batch(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets."""
    if args.model == "resnet":
        images = torch.randn(args.micro_batch, 3, args.sequence, args.sequence)
        return images.to(args.device), torch.randint(10, (args.micro_batch,)).to(args.device)
    rows = torch.randint(args.vocabulary, (args.micro_batch, args.sequence + 1)).to(args.device)
    return rows[:, :-1], rows[:, 1:]


def train(args: argparse.Namespace) -> None:
    """Train."""
    torch.manual_seed(0)
    model = make_model(args).to(args.device)
    if args.checkpointing and hasattr(model, "gradient_checkpointing_enable"):
        model.gradient_checkpointing_enable()
    options: dict[str, Any] = {"lr": 1e-3, "weight_decay": args.weight_decay, **IMPLEMENTATIONS[args.implementation]}
    if args.optimizer == "momentum":
        options["momentum"] = 0.9
    optimizer = OPTIMIZERS[args.optimizer](model.parameters(), **options)
    set_to_none = not args.keep_gradients
    for step in range(args.steps):
        if args.zero_grad == "first":
            optimizer.zero_grad(set_to_none=set_to_none)
        for _ in range(args.accumulation):
            inputs, targets = draw_batch(args)
            with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.bf16):
                if args.model.startswith("hf-"):
                    outputs = model(input_ids=inputs, labels=inputs)
                    loss = outputs.loss
                elif args.model == "gpt":
                    logits = model(inputs)
                    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
                else:
                    loss = F.cross_entropy(model(inputs), targets)
            if args.zero_grad == "before-backward":
                optimizer.zero_grad(set_to_none=set_to_none)
            loss.backward()
        optimizer.step()
        if args.zero_grad == "last":
            optimizer.zero_grad(set_to_none=set_to_none)
        print(f"step {step + 1} loss {loss.item():.4f}", flush=True)


def parse_args() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["gpt", "resnet", "hf-gpt2", "hf-llama"], default="gpt")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adamw")
    parser.add_argument("--implementation", choices=list(IMPLEMENTATIONS), default="default")
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--zero-grad", choices=["first", "before-backward", "last"], default="last")
    parser.add_argument("--keep-gradients", action="store_true", help="zero_grad(set_to_none=False)")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--sequence", type=int, default=64, help="tokens in a row; pixels of an image's side")
    parser.add_argument("--vocabulary", type=int, default=1000)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--attention", choices=["sdpa", "explicit"], default="sdpa")
    parser.add_argument("--dropout", type=float, default=0.0)
    return parser.parse_args()


if __name__ == "__main__":
    train(parse_args())
