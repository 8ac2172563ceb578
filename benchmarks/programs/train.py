"""Train a small model in one of the ways whose memory memtrace must account for exactly. It knows nothing of memtrace.

    python train.py --model gpt2 --optimizer adamw-fused --precision bf16 --mode checkpoint --parallel none

The models are those of `samples/` and two of `transformers`, small and with random weights. With `--parallel`, run it
under `torchrun` (two ranks on the CPU are enough; with `--device cuda` each takes a GPU). `--account FILE` and
`--count-saved FILE` make the program count its own memory instead (see `account.py`); such a run must be bare.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "samples")]

import own_optimizers  # noqa: E402

VOCABULARY = 131
"""Odd, so that two ranks cannot share an embedding evenly."""
HIDDEN, LAYERS, HEADS, SEQUENCE, ROWS = 64, 2, 2, 32, 4
IMAGE, CLASSES = 16, 10
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16}

MODELS = ("gpt", "resnet", "gpt2", "llama")
OPTIMIZERS = (
    "adamw-foreach",
    "adamw-loop",
    "adamw-fused",
    "sgd",
    "sgd-momentum",
    "adafactor",
    "own-anew",
    "own-in-place",
    "own-replaced",
)
MODES = ("plain", "accumulate", "checkpoint", "keep-grads")
PARALLEL = ("none", "ddp", "ddp-views", "fsdp2")
EXTRAS = ("clip", "ema", "wrapped", "explicit")


def make_model(args: argparse.Namespace) -> nn.Module:
    """Return the model, with checkpointing where it is wanted."""
    recompute = args.mode == "checkpoint"
    if args.model == "gpt":
        from train_gpt import GPT

        attention = "explicit" if "explicit" in args.extra else "sdpa"
        sizes = SimpleNamespace(layers=LAYERS, heads=HEADS, hidden=HIDDEN, sequence=SEQUENCE, dropout=0.1)
        return GPT(VOCABULARY, SimpleNamespace(**vars(sizes), attention=attention, checkpointing=recompute))
    if args.model == "resnet":
        from train_resnet import ResNet

        model = ResNet(8, CLASSES)
        if recompute:
            model.blocks = nn.Sequential(*map(Checkpointed, model.blocks))
        return model
    model: Any = make_transformer(args)
    if recompute and hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    elif recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def make_transformer(args: argparse.Namespace) -> nn.Module:
    """Return a model of `transformers` with random weights, made from its configuration alone."""
    import transformers

    attention = "eager" if "explicit" in args.extra else "sdpa"
    common = {"vocab_size": VOCABULARY, "use_cache": False, "attn_implementation": attention}
    if args.model == "gpt2":
        config = transformers.GPT2Config(
            n_positions=SEQUENCE, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, bos_token_id=0, eos_token_id=0, **common
        )
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        max_position_embeddings=SEQUENCE,
        **common,
    )
    return transformers.LlamaForCausalLM(config)


class Checkpointed(nn.Module):
    """A module whose activations are computed again in the backward pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.module, x, use_reentrant=False)


class Wrapped:
    """A model behind a wrapper that is no module, as training libraries make them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def make_optimizer(model: nn.Module, name: str) -> torch.optim.Optimizer:
    """Return the optimizer of this name over all parameters of the model."""
    parameters = list(model.parameters())
    kind, _, implementation = name.partition("-")
    if kind == "adamw":
        fused, foreach = implementation == "fused", implementation == "foreach"
        return torch.optim.AdamW(parameters, lr=1e-3, foreach=foreach, fused=fused)
    if kind == "own":
        return own_optimizers.AdamW(parameters, implementation)
    if kind == "adafactor":
        return torch.optim.Adafactor(parameters, lr=1e-3)
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9 if implementation == "momentum" else 0.0)


def parallelize(model: nn.Module, args: argparse.Namespace) -> nn.Module:
    """Return the model spread over the ranks."""
    if args.parallel == "fsdp2":
        from torch.distributed.fsdp import fully_shard

        for block in blocks_of(model):
            fully_shard(block)
        return fully_shard(model)
    if args.parallel in ("ddp", "ddp-views"):
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model, gradient_as_bucket_view=args.parallel == "ddp-views")
    return model


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers that are sharded one by one."""
    lists = (module for module in model.modules() if isinstance(module, (nn.ModuleList, nn.Sequential)))
    yield from next(iter(lists), ())


def draw_batch(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return random inputs and targets, made on the host as a data loader makes them."""
    if args.model == "resnet":
        inputs, targets = torch.randn(ROWS, 3, IMAGE, IMAGE), torch.randint(CLASSES, (ROWS,))
    else:
        inputs, targets = (torch.randint(VOCABULARY, (ROWS, SEQUENCE)) for _ in range(2))
    return inputs.to(args.device), targets.to(args.device)


def compute_loss(model: Any, inputs: Tensor, targets: Tensor, args: argparse.Namespace) -> tuple[Any, Tensor]:
    """Return the model's output and the loss; like most programs, this one holds both during the backward pass."""
    if args.model in ("gpt2", "llama"):
        output = model(input_ids=inputs, labels=targets)
        return output, output.loss
    logits = model(inputs)
    return logits, F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def train(args: argparse.Namespace, account: Any) -> None:
    """Run the steps."""
    torch.manual_seed(0)
    model: Any = parallelize(make_model(args).to(args.device), args)
    optimizer = make_optimizer(model, args.optimizer)
    averages = [torch.optim.swa_utils.AveragedModel(model)] if "ema" in args.extra else []
    if "wrapped" in args.extra:
        model = Wrapped(model)
    dtype = AUTOCAST[args.precision]
    count = 4 if args.mode == "accumulate" else 1
    for step in range(1, args.steps + 1):
        for number in range(count):
            inputs, targets = draw_batch(args)
            skips_reduction = args.parallel.startswith("ddp") and number + 1 < count
            with model.no_sync() if skips_reduction else contextlib.nullcontext():
                with torch.autocast(args.device, dtype=dtype, enabled=dtype is not None), account.forward():
                    output, loss = compute_loss(model, inputs, targets, args)
                account.end_forward(model, (inputs, targets), (output, loss))
                (loss / count).backward()
        if "clip" in args.extra:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        account.end_step([model, *averages], optimizer)
        for average in averages:
            average.update_parameters(model)
        optimizer.zero_grad(set_to_none=args.mode != "keep-grads")
        print(f"step {step} loss {loss.item():.6f}", flush=True)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="gpt")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw-foreach")
    parser.add_argument("--precision", choices=tuple(AUTOCAST), default="fp32", help="bf16 is autocast")
    parser.add_argument("--mode", choices=MODES, default="plain")
    parser.add_argument("--parallel", choices=PARALLEL, default="none")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--extra", nargs="*", choices=EXTRAS, default=())
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--account", help="count what is owned into this file; RANK in its name is a number")
    parser.add_argument("--count-saved", help="count saved activations into this file")
    return parser.parse_args(arguments)


def main() -> None:
    """Train, alone or as one rank of several."""
    args = parse_args()
    if args.parallel == "none":
        train_counted(args)
        return
    if args.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("gloo" if args.device == "cpu" else "nccl")
    try:
        train_counted(args)
    finally:
        torch.distributed.destroy_process_group()


def of_rank(path: str | None) -> Path | None:
    """Return the file of this rank."""
    return None if path is None else Path(path.replace("RANK", os.environ.get("RANK", "0")))


def train_counted(args: argparse.Namespace) -> None:
    """Train, and write the account that was asked for."""
    import account

    counter = account.make_account(args.device, owners=of_rank(args.account), saved=of_rank(args.count_saved))
    train(args, counter)
    counter.write()


if __name__ == "__main__":
    main()
