"""Small training programs, each run twice: for real on the CPU, then on a GPU that is not there.

Run as a program of its own, since the fake device cannot be taken out of a process again. Prints, for each program and
device, what each phase of its steps allocated and freed, in order, and what autograd kept for backward.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from memtrace.hooks.ownership.saved import SavedWalk
from memtrace.hooks.sources.cpu_profiler import CpuSource
from memtrace.schema.options import PredictOptions

WIDTH, ROWS, WORDS, BATCH = 48, 16, 50, 4
STEPS = 2
Program = Callable[[str], Iterator[Any]]
"""Runs on a device and yields the name of the phase that begins, or a loss and its model: look what is saved now."""


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inside(x)


class Words(nn.Module):
    """Embedding, position, layers with residuals, head."""

    def __init__(self, wrap: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(WORDS, WIDTH), nn.Parameter(torch.zeros(ROWS, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.head = nn.Linear(WIDTH, WORDS)
        self.wrap = wrap

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.embedding(words) + self.position
        for layer in self.layers:
            x = self.wrap(layer, x)
        return self.head(x)


def training(
    make_optimizer: Callable[[Any], torch.optim.Optimizer],
    *,
    wrap: Callable[[nn.Module, torch.Tensor], torch.Tensor] = lambda layer, x: layer(x),
    dtype: torch.dtype = torch.float32,
    with_scaler: bool = False,
    clip: bool = False,
) -> Program:
    """Return a usual loop: forward, backward, optimizer step, gradients dropped."""

    def run(device: str) -> Iterator[Any]:
        model = Words(wrap).to(device, dtype)
        optimizer = make_optimizer(model.parameters())
        scaler = torch.amp.GradScaler(device, enabled=with_scaler)
        words = torch.zeros(BATCH, ROWS, dtype=torch.long, device=device)
        for _ in range(STEPS):
            yield "forward"
            loss = F.cross_entropy(model(words).flatten(0, 1), words.flatten())
            yield loss, model
            yield "backward"
            scaler.scale(loss).backward()
            del loss
            yield "optimizer"
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            yield "zero_grad"
            optimizer.zero_grad()

    return run


class Casts:
    """Mixed precision written out: what `torch.autocast` does on CUDA, by the lists of `ATen/autocast_mode.h`."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.kept: dict[nn.Linear, tuple[torch.Tensor, torch.Tensor]] = {}

    def linear(self, layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        """Linear layers run in the lower type; casts of parameters are kept until autocast ends."""
        if layer not in self.kept:
            self.kept[layer] = layer.weight.to(self.dtype), layer.bias.to(self.dtype)
        return F.linear(x.to(self.dtype), *self.kept[layer])

    def product(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return one.to(self.dtype) @ other.to(self.dtype)

    def softmax(self, x: torch.Tensor) -> torch.Tensor:
        """In float32, from a copy: only float16 has a kernel that widens."""
        return x.float().softmax(-1)

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """A sum is told to answer in float32, and its input is not cast."""
        return x.sum(dtype=torch.float32)

    def exp(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().exp()

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        return torch.norm(x, 2, dtype=torch.float32)

    def cross_entropy(self, x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Its first half asks for the type of the input itself, its second half is cast (`LossNLL.cpp`)."""
        return F.nll_loss(F.log_softmax(x, -1, dtype=x.dtype).float(), words)


class Autocast(Casts):
    """The same, left to `torch.autocast`."""

    def linear(self, layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return layer(x)

    def product(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return one @ other

    def softmax(self, x: torch.Tensor) -> torch.Tensor:
        return x.softmax(-1)

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()

    def exp(self, x: torch.Tensor) -> torch.Tensor:
        return x.exp()

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        return x.norm()

    def cross_entropy(self, x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(x, words)


def mixed(device: str) -> Iterator[Any]:
    model = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in "abc"}).to(device)
    norm, x = nn.LayerNorm(WIDTH).to(device), torch.zeros(BATCH, ROWS, WIDTH, device=device)
    words = torch.zeros(BATCH * ROWS, dtype=torch.long, device=device)
    math = Casts(torch.bfloat16) if device == "cpu" else Autocast(torch.bfloat16)
    for _ in range(STEPS):
        yield "forward"
        with torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu"):
            a = math.linear(model["a"], norm(x))
            inner = x + math.linear(model["a"], F.gelu(a))
            b = math.linear(model["b"], inner)
            scores = math.softmax(math.product(b, b.transpose(1, 2)))
            c = math.linear(model["c"], math.product(scores, b))
            penalty = math.sum(c) + math.exp(c).mean() + math.norm(c)
            loss = math.cross_entropy(c.flatten(0, 1), words) + penalty
        math.kept.clear()
        del a, inner, b, scores, c, penalty
        yield loss, nn.ModuleList([model, norm])
        yield "backward"
        loss.backward()
        del loss
        yield "zero_grad"
        model.zero_grad()
        norm.zero_grad()


def hugging(name: str, task: str, **sizes: int) -> Program:
    """Return forwards of a small model of `transformers`, without dropout and with attention written out."""

    def run(device: str) -> Iterator[Any]:
        import transformers

        config = getattr(transformers, f"{name}Config")(
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=2 * WIDTH,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="eager",
            **sizes,
        )
        model = getattr(transformers, f"{name}For{task}")(config).to(device)
        if task == "ImageClassification":
            labels = torch.zeros(BATCH, dtype=torch.long, device=device)
            loss = model(pixel_values=torch.zeros(BATCH, 3, 32, 32, device=device), labels=labels).loss
        else:
            words = torch.zeros(BATCH, ROWS, dtype=torch.long, device=device)
            loss = model(input_ids=words, labels=words).loss
        yield loss, model

    return run


def convolutions(device: str) -> Iterator[Any]:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).to(device)  # fmt: skip
    yield model(torch.zeros(BATCH, 3, 32, 32, device=device)).square().mean(), model


def _checkpointed(*, use_reentrant: bool) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    return lambda layer, x: checkpoint(layer, x, use_reentrant=use_reentrant)


def _adamw(**options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.AdamW(parameters, **options)


PROGRAMS: dict[str, Program] = {
    # On CUDA the foreach path is the default; on the CPU it has to be asked for.
    "adamw": training(_adamw(foreach=True)),
    "adamw_loop": training(_adamw(foreach=False)),
    "adamw_fused": training(_adamw(fused=True)),
    "sgd_momentum": training(lambda them: torch.optim.SGD(them, lr=0.1, momentum=0.9, weight_decay=0.1, foreach=True)),
    "adafactor": training(lambda them: torch.optim.Adafactor(them, foreach=True)),
    "rmsprop": training(lambda them: torch.optim.RMSprop(them, momentum=0.9, foreach=True)),
    "clipped": training(_adamw(foreach=True), clip=True),
    "scaler": training(_adamw(foreach=True), with_scaler=True),
    "bfloat16": training(_adamw(foreach=True), dtype=torch.bfloat16),
    "checkpoint": training(_adamw(foreach=True), wrap=_checkpointed(use_reentrant=False)),
    "checkpoint_reentrant": training(_adamw(foreach=True), wrap=_checkpointed(use_reentrant=True)),
    "autocast": mixed,
    "convolutions": convolutions,
    "bert": hugging("Bert", "MaskedLM", vocab_size=WORDS),
    "vit": hugging("ViT", "ImageClassification", image_size=32, patch_size=8),
}


def watched(program: Program, device: str, source: Any) -> dict[str, list[Any]]:
    """Return sizes allocated and freed (negative) by phase, and what was saved."""
    found: dict[str, list[Any]] = {"phases": [], "saved": []}
    phase = "setup"
    source.start(frames=False)
    for told in program(device):
        found["phases"].append((phase, _sizes(source.stop())))
        if isinstance(told, str):
            phase = told
        else:
            loss, model = told
            found["saved"].append(_saved(loss, model))
            del loss
            phase = "nothing"
        del told
        source.start(frames=False)
    found["phases"].append((phase, _sizes(source.stop())))
    return found


def _sizes(batch: Any) -> list[int]:
    if not batch.columns:
        return []
    alloc = batch.strings.id_of("alloc")
    pairs = zip(batch.columns["action"], batch.columns["size_bytes"], strict=True)
    return [size if action == alloc else -size for action, size in pairs]


def _saved(loss: torch.Tensor, model: nn.Module) -> list[tuple[str, str, str, int]]:
    parameters = {one.untyped_storage().data_ptr() for one in model.parameters()}
    rows = SavedWalk(torch).rows([loss], now_ns=0, step=0, microbatch=0)
    return sorted((op, dtype, shape, size) for *_, at, size, op, dtype, shape in rows if at not in parameters)


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    programs = {name: PROGRAMS[name] for name in names or PROGRAMS}
    real = CpuSource(torch, stacks="none", profile=False, warn=print)
    found = {name: {"cpu": watched(program, "cpu", real)} for name, program in programs.items()}
    # No workspace of cuBLAS: the host has none.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":0:0"
    from memtrace.hooks.fake.install import FakeDevice

    gpu = PredictOptions(gpu_name="a100-80gb", gpu_bytes=80 << 30, capability=(8, 0), num_steps=0)
    device = FakeDevice(gpu, with_stacks=False, warn=lambda *_: None)
    device.install()
    for name, program in programs.items():
        found[name]["cuda"] = watched(program, "cuda", device.memory)
    print(json.dumps({"programs": found, "random_state": torch.get_rng_state().numel()}))


if __name__ == "__main__":
    main(sys.argv[1:])
