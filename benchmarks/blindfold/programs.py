"""The training programs that the blind test records.

The samples over optimizers, precisions and ways of training, and `benchmarks/programs/train.py`, which trains classes
of `transformers` too, and on two ranks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GPT, RESNET = ROOT / "samples" / "train_gpt.py", ROOT / "samples" / "train_resnet.py"
OTHERS = ROOT / "benchmarks" / "programs" / "train.py"

ZERO_IN_PLACE = """
import runpy, sys, torch
real = torch.optim.Optimizer.zero_grad
torch.optim.Optimizer.zero_grad = lambda self, set_to_none=False: real(self, set_to_none=False)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program whose `zero_grad` fills gradients with zeros instead of dropping them."""

_OPTIMIZERS = {
    "adamw-loop": ("--optimizer", "adamw", "--no-foreach"),
    "adamw-foreach": ("--optimizer", "adamw", "--foreach"),
    "adamw-fused": ("--optimizer", "adamw", "--fused"),
    "sgd": ("--optimizer", "sgd"),
    "sgd-momentum": ("--optimizer", "sgd-momentum"),
}
_WAYS = {
    "plain": (),
    "accumulation": ("--accumulation", "4"),
    "checkpointing": ("--checkpointing",),
    "zero-in-place": (),
}
_SMALL = ("--layers", "2", "--hidden", "64", "--sequence", "64", "--steps", "4")
_WIDE = ("--layers", "3", "--hidden", "192", "--sequence", "32", "--micro-batch", "1", "--steps", "4")
_RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
_MORE = {
    "gpt2-adamw-foreach-fp32-plain": "gpt2 adamw-foreach fp32 plain none",
    "gpt2-adamw-fused-fp32-ckpt": "gpt2 adamw-fused fp32 checkpoint none",
    "gpt2-sgd-momentum-bf16-acc": "gpt2 sgd-momentum bf16 accumulate none",
    "gpt2-wrapped": "gpt2 adamw-foreach fp32 plain none wrapped",
    "llama-adafactor-fp32-plain": "llama adafactor fp32 plain none",
    "llama-adamw-loop-bf16-keep": "llama adamw-loop bf16 keep-grads none",
    "llama-sgd-bf16-ckpt": "llama sgd bf16 checkpoint none",
    "resnet-adafactor-fp32-plain": "resnet adafactor fp32 plain none",
    "gpt2-own-adamw-anew": "gpt2 own-anew fp32 plain none",
    "gpt2-own-adamw-replaced": "gpt2 own-replaced fp32 plain none",
    "resnet-own-adamw-in-place": "resnet own-in-place fp32 plain none",
    "gpt-adamw-clip": "gpt adamw-foreach fp32 plain none clip",
    "gpt-adamw-ema": "gpt adamw-foreach fp32 plain none ema",
    "gpt-adamw-fp32-ddp": "gpt adamw-foreach fp32 plain ddp",
    "llama-adamw-fp32-ddp-acc": "llama adamw-fused fp32 accumulate ddp",
    "resnet-sgdm-fp32-ddpviews": "resnet sgd-momentum fp32 plain ddp-views",
    "gpt-adamw-fp32-fsdp2": "gpt adamw-foreach fp32 plain fsdp2",
    "gpt2-adamw-loop-fp32-fsdp2-ckpt": "gpt2 adamw-loop fp32 checkpoint fsdp2",
    "llama-sgdm-bf16-fsdp2": "llama sgd-momentum bf16 plain fsdp2",
}
"""Name, then model, optimizer, precision, mode, parallelism and extras of `train.py`."""
_RESNET = ("--width", "8", "--micro-batch", "8", "--steps", "4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A training program to record."""

    name: str
    command: tuple[str, ...]
    """Script and arguments, run by this Python."""
    options: tuple[str, ...] = ()
    """Options of `memtrace record`."""


def programs() -> Iterator[Program]:
    """Yield every program of the blind test."""
    for precision in ("fp32", "bf16"):
        for optimizer, chosen in _OPTIMIZERS.items():
            for way, extra in _WAYS.items():
                # Activations outweigh parameters in one, parameters activations in the other.
                for size, shape in (("small", _SMALL), ("wide", _WIDE)):
                    if (size == "wide") == (way == "checkpointing"):
                        continue
                    arguments = (str(GPT), *shape, *chosen, *extra, "--precision", precision)
                    yield _program(f"gpt-{size}-{optimizer}-{precision}-{way}", arguments, way)
        for optimizer in ("adamw", "sgd", "sgd-momentum"):
            for way in ("plain", "zero-in-place"):
                arguments = (str(RESNET), *_RESNET, "--optimizer", optimizer, "--precision", precision)
                yield _program(f"resnet-{optimizer}-{precision}-{way}", arguments, way)
    for name, option in {
        "explicit": ("--attention", "explicit", "--dropout", "0.1"),
        "adagrad": ("--optimizer", "adagrad"),
    }.items():
        yield _program(f"gpt-small-{name}", (str(GPT), *_SMALL, *option), "plain")

    for name, words in _MORE.items():
        model, optimizer, precision, mode, parallel, *extra = words.split()
        arguments = ["--model", model, "--optimizer", optimizer, "--precision", precision, "--mode", mode]
        arguments += ["--parallel", parallel, "--steps", "4", *(["--extra", *extra] if extra else [])]
        yield Program(name=name, command=(*(() if parallel == "none" else _RANKS), str(OTHERS), *arguments))


def _program(name: str, arguments: Sequence[str], way: str) -> Program:
    prefix = ("-c", ZERO_IN_PLACE) if way == "zero-in-place" else ()
    return Program(name=name, command=(*prefix, *arguments))


def record(program: Program, folder: Path, device: str = "cpu") -> Path:
    """Return the trace of a program, recorded into a folder unless it is there already; several may share the folder.

    On the `device` "cpu" or "cuda".

    Raises:
        RuntimeError: the program failed.
    """
    path, own = folder / f"{program.name}.json", folder / f"{program.name}.{os.getpid()}.json"
    if path.exists():
        return path
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "memtrace", "record", *program.options, "-o", str(own), "--device", device, "--"]
    command = [*line, sys.executable, *program.command, "--device", device]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ran.returncode:
        own.unlink(missing_ok=True)
        raise RuntimeError(f"{program.name} failed:\n{ran.stderr[-2000:]}")
    return own.replace(path)
