"""Train a small GPT-2, Llama or T5 of `transformers` on random tokens; `--help` shows the options.

A program to record: benchmarks/accuracy_estimate.py compares estimates with what it needs.
"""

import argparse
import json

import torch
import transformers

PRECISIONS = ("fp32", "autocast", "bf16")


def build(args: argparse.Namespace) -> torch.nn.Module:
    settings = json.loads(args.config)
    config = transformers.CONFIG_MAPPING[settings.pop("model_type")](**settings, use_cache=False)
    loader = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    model = loader.from_config(config, attn_implementation=args.attention)
    if args.precision == "bf16":
        model = model.to(torch.bfloat16)
    if args.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    model = build(args)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, args.steps + 1):
        for _ in range(args.accumulation):
            tokens = torch.randint(0, model.config.vocab_size, (args.micro_batch, args.sequence))
            labels = tokens
            if model.config.is_encoder_decoder:
                length = args.target_sequence or args.sequence
                labels = torch.randint(0, model.config.vocab_size, (args.micro_batch, length))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "autocast"):
                output = model(tokens, labels=labels)
            (output.loss / args.accumulation).backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step} loss {output.loss.item():.4f}", flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--config", required=True, help="config.json as text, model_type included")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=64)
    parser.add_argument("--target-sequence", type=int, help="the decoder's; as many as the encoder's if not given")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    train(parse_args())
