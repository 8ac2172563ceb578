"""Many small models, trained two steps each, one after the other: what `benchmarks/engines.py` predicts twice.

python benchmarks/programs/many_models.py [NAME ...] [--sample 25 --seed 1]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._pytree import tree_map

HIDDEN, LAYERS, HEADS, INNER, VOCABULARY = 256, 2, 4, 512, 4096
BATCH, LENGTH, IMAGE = 4, 256, 96
STEPS = 2
_WIDE = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "vocab_size": VOCABULARY,
}
_GPT2 = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": VOCABULARY}
_SHORT = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LANGUAGE: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2,
    "gpt_neo": {
        "hidden_size": HIDDEN,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "attention_types": [[["global", "local"], 1]],
        "vocab_size": VOCABULARY,
    },
    "opt": {
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "ffn_dim": INNER,
        "vocab_size": VOCABULARY,
        "word_embed_proj_dim": HIDDEN,
    },
    "bloom": {"hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": VOCABULARY},
    **{name: {**_WIDE, **_SHORT} for name in ("gpt_neox", "phi", "starcoder2", "olmo", "codegen")},
    **{
        name: {**_WIDE, **_SHORT, "num_key_value_heads": 2}
        for name in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "granite", "mixtral")
    },
    **dict.fromkeys(("bert", "roberta", "electra", "deberta-v2"), _WIDE),
    "distilbert": {
        "dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER, "vocab_size": VOCABULARY
    },
    "t5": {
        "d_model": HIDDEN, "num_layers": LAYERS, "num_heads": HEADS, "d_ff": INNER, "vocab_size": VOCABULARY,
        "d_kv": HIDDEN // HEADS, "decoder_start_token_id": 0,
    },
    "bart": {
        "d_model": HIDDEN, "encoder_layers": LAYERS, "decoder_layers": LAYERS, "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS, "encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER,
        "vocab_size": VOCABULARY,
    },
}  # fmt: skip
_MASKED = ("bert", "roberta", "electra", "deberta-v2", "distilbert")
VISION = (
    "resnet18",
    "mobilenet_v3_small",
    "densenet121",
    "vgg11",
    "squeezenet1_1",
    "efficientnet_b0",
    "regnet_y_400mf",
    "convnext_tiny",
    "swin_t",
    "shufflenet_v2_x1_0",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model and how it is trained."""

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], dict[str, Any]]
    dtype: torch.dtype | None = None
    autocast: torch.dtype | None = None
    optimizer: str = "AdamW"
    options: dict[str, Any] = field(default_factory=dict)
    checkpoint: bool | None = None
    """Whether activations are computed again by reentrant checkpoints; `None` for no checkpoints."""
    kernel: str | None = None
    """The attention kernel that is asked for."""


def language(name: str, **how: Any) -> Case:
    """Return a model of transformers on token ids; `attention` chooses its implementation."""
    attention, variant = how.pop("attention", None), how.pop("variant", "")

    def build() -> nn.Module:
        import transformers

        config = transformers.AutoConfig.for_model(name, **LANGUAGE[name])
        kind = transformers.AutoModelForCausalLM
        if name in ("t5", "bart"):
            kind = transformers.AutoModelForSeq2SeqLM
        elif name in _MASKED:
            kind = transformers.AutoModelForMaskedLM
        options = {} if attention is None else {"attn_implementation": attention}
        model: nn.Module = kind.from_config(config, **options)
        return model

    def batch() -> dict[str, torch.Tensor]:
        ids = torch.randint(3, VOCABULARY, (BATCH, LENGTH))
        return {"input_ids": ids, "labels": ids.clone()}

    return Case(name=f"{name}{variant}", build=build, batch=batch, **how)


class _Classified(nn.Module):
    """A module that is given inputs and labels, and returns the loss."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        out = self.inner(x)
        out = out[0] if isinstance(out, tuple) else out
        return nn.functional.cross_entropy(out.reshape(-1, out.shape[-1]).float(), labels)


def vision(name: str) -> Case:
    """Return a model of torchvision on images."""

    def build() -> nn.Module:
        import torchvision

        return _Classified(torchvision.models.get_model(name, num_classes=10))

    def batch() -> dict[str, torch.Tensor]:
        return {"x": torch.rand(BATCH, 3, IMAGE, IMAGE), "labels": torch.randint(0, 10, (BATCH,))}

    return Case(name=name, build=build, batch=batch)


def plain(name: str, module: Callable[[], nn.Module], *shape: int, classes: int = HIDDEN) -> Case:
    """Return a module of torch itself on random numbers."""

    def batch() -> dict[str, torch.Tensor]:
        x = torch.rand(*shape)
        return {"x": x, "labels": torch.randint(0, classes, (x.numel() // shape[-1],))}

    return Case(name=name, build=lambda: _Classified(module()), batch=batch)


def cases() -> Iterator[Case]:
    """Yield every case."""
    for name in LANGUAGE:
        yield language(name)
    for name in ("gpt2", "llama", "bert"):
        yield language(name, variant=" bf16", dtype=torch.bfloat16)
        yield language(name, variant=" autocast bf16", autocast=torch.bfloat16)
        yield language(name, variant=" autocast fp16", autocast=torch.float16)
        yield language(name, variant=" eager", attention="eager")
        yield language(name, variant=" eager bf16", attention="eager", dtype=torch.bfloat16)
    for name in ("gpt2", "llama"):
        for optimizer, options in (
            ("SGD", {"momentum": 0.9}), ("RMSprop", {}), ("Adafactor", {}), ("Adam", {"foreach": False}),
            ("AdamW", {"fused": True}), ("AdamW", {"amsgrad": True}), ("NAdam", {}),
        ):  # fmt: skip
            said = " ".join([optimizer, *options])
            yield language(name, variant=f" {said}", optimizer=optimizer, options=options)
        yield language(name, variant=" checkpoints", checkpoint=False)
        yield language(name, variant=" reentrant checkpoints", checkpoint=True)
        for kernel in ("MATH", "EFFICIENT_ATTENTION"):
            yield language(name, variant=f" {kernel.lower()}", kernel=kernel)
            yield language(name, variant=f" bf16 {kernel.lower()}", kernel=kernel, dtype=torch.bfloat16)
    for name in VISION:
        yield vision(name)
    yield plain("lstm", lambda: nn.LSTM(HIDDEN, HIDDEN, 2, batch_first=True), BATCH, LENGTH, HIDDEN)
    yield plain("gru", lambda: nn.GRU(HIDDEN, HIDDEN, batch_first=True), BATCH, LENGTH, HIDDEN)
    layer = nn.TransformerEncoderLayer
    yield plain("encoder", lambda: layer(HIDDEN, HEADS, INNER, batch_first=True), BATCH, LENGTH, HIDDEN)
    yield plain("norms", lambda: nn.Sequential(nn.LayerNorm(HIDDEN), nn.Softmax(-1)), BATCH, LENGTH, HIDDEN)


def train(case: Case) -> None:
    """Train a case for two steps, as its user would."""
    model = case.build()
    if case.dtype is not None:
        model = model.to(case.dtype)
    model.cuda().train()
    if case.checkpoint is not None:
        model.gradient_checkpointing_enable({"use_reentrant": case.checkpoint})
    optimizer = getattr(torch.optim, case.optimizer)(model.parameters(), lr=1e-4, **case.options)
    scaler = torch.amp.GradScaler("cuda", enabled=case.autocast is torch.float16)
    kernel: Any = contextlib.nullcontext
    if case.kernel is not None:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        def kernel() -> Any:
            return sdpa_kernel(getattr(SDPBackend, case.kernel or ""))

    for step in range(STEPS):
        # Both engines must see the same batch, and drop the same layers: they draw other numbers while they build.
        torch.manual_seed(step)
        batch = tree_map(_onto_gpu, case.batch())
        with kernel(), torch.autocast("cuda", dtype=case.autocast, enabled=case.autocast is not None):
            out = model(**batch)
            loss = out if isinstance(out, torch.Tensor) else out.loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def _onto_gpu(one: Any) -> Any:
    return one.cuda() if isinstance(one, torch.Tensor) else one


def train_all(found: Iterable[Case]) -> None:
    """Train the cases that are named, or all, or a sample; say of each, on a line, how many steps there were before and
    after it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--sample", type=int, help="as many as this, by the seed")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    chosen, path = set(asked.names), os.environ.get("MANY_MODELS_SAID")
    if asked.sample is not None:
        names = [case.name for case in cases()]
        chosen |= set(random.Random(asked.seed).sample(names, min(asked.sample, len(names))))
    steps = [0]

    def count(*_: Any) -> None:
        steps[0] += 1

    register_optimizer_step_post_hook(count)
    with open(path, "a", encoding="utf-8") if path else contextlib.nullcontext(sys.stdout) as said:
        for case in found:
            if chosen and case.name not in chosen:
                continue
            first, problem = steps[0], ""
            try:
                train(case)
            except Exception as error:
                problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            gc.collect()
            torch.cuda.empty_cache()
            print(f"{case.name}\t{first}\t{steps[0]}\t{problem}", file=said, flush=True)


if __name__ == "__main__":
    train_all(cases())
