"""The configurations for which predictions are held against runs, and the commands that run them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

PROGRAM = Path(__file__).parent.parent / "programs" / "train_gpu.py"
STEPS = 4
REDUCED_BATCH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to train."""

    model: str
    batch: int
    optimizer: str = "adamw"
    precision: str = "fp32"
    attention: str = "sdpa"
    dropout: float = 0.0
    accumulation: int = 1
    checkpointing: bool = False
    clip: bool = False
    probes: bool = False
    """Whether it is also run with too little memory, and with just enough."""
    size: str = "full"

    @property
    def name(self) -> str:
        """A name for tables, unique among the configurations."""
        words = [self.model, str(self.batch), self.optimizer, self.precision, self.attention]
        words += [f"dropout {self.dropout}"] if self.dropout else []
        words += [f"accumulate {self.accumulation}"] if self.accumulation > 1 else []
        words += [word for word, is_on in (("checkpoint", self.checkpointing), ("clip", self.clip)) if is_on]
        return " ".join(words)

    @property
    def has_kernels_of_cuda(self) -> bool:
        """Whether the CPU runs other kernels than CUDA, so that what autograd keeps is not the same by design."""
        if self.model == "resnet":
            # CUDA's batch norm keeps its statistics in float32 where the CPU keeps them in 16 bits.
            return self.precision != "fp32"
        if self.model == "llama":
            # CUDA normalizes by the root mean square in one kernel, the CPU in several.
            return True
        is_chosen = self.attention not in ("math", "explicit")
        return is_chosen or self.dropout > 0 or self.precision in ("bf16", "fp16")

    def reduced(self) -> Case:
        """Return the same in small, for a real run on the CPU."""
        return replace(self, size="reduced", batch=REDUCED_BATCH)

    def command(self, device: str, *, capacity_bytes: int | None = None) -> list[str]:
        """Return the command line."""
        # The CPU has no kernel of that name, or none with dropout.
        attention = "sdpa" if device == "cpu" and self.attention in ("efficient", "flash") else self.attention
        options = {"model": self.model, "size": self.size, "batch": self.batch, "optimizer": self.optimizer}
        options |= {"precision": self.precision, "attention": attention, "dropout": self.dropout}
        options |= {"accumulation": self.accumulation, "steps": STEPS, "device": device}
        options |= {} if capacity_bytes is None else {"capacity": capacity_bytes}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        flags = [f"--{name}" for name in ("checkpointing", "clip") if getattr(self, name)]
        return [sys.executable, str(PROGRAM), *words, *flags]


def all_cases() -> list[Case]:
    """Return every configuration, those that are run with little memory first, since they take longest."""
    gpt, llama, bert, vit, resnet = "gpt", "llama", "bert", "vit", "resnet"
    cases = [
        Case(model=gpt, batch=8, probes=True),
        Case(model=gpt, batch=8, attention="explicit"),
        Case(model=gpt, batch=8, attention="math", optimizer="sgd-momentum"),
        Case(model=gpt, batch=8, precision="bf16", dropout=0.1, probes=True),
        Case(model=gpt, batch=16, precision="bf16", checkpointing=True),
        Case(model=gpt, batch=8, precision="fp16", optimizer="adamw-fused", clip=True),
        Case(model=gpt, batch=8, precision="pure-bf16", optimizer="adamw-loop"),
        Case(model=gpt, batch=4, precision="bf16", attention="efficient", accumulation=4),
        Case(model=gpt, batch=1, optimizer="rmsprop"),
        Case(model=llama, batch=8, precision="pure-bf16", attention="flash", probes=True),
        Case(model=llama, batch=8, precision="pure-bf16", attention="math"),
        Case(model=llama, batch=4, attention="efficient", clip=True),
        Case(model=llama, batch=8, precision="bf16", optimizer="adamw-fused", checkpointing=True),
        Case(model=llama, batch=4, precision="fp16", optimizer="adamw-loop"),
        Case(model=llama, batch=2, attention="explicit", optimizer="sgd", accumulation=2),
        Case(model=llama, batch=1, precision="bf16", optimizer="adagrad", clip=True),
        Case(model=bert, batch=16),
        Case(model=bert, batch=32, precision="bf16", dropout=0.1, probes=True),
        Case(model=bert, batch=16, attention="math", optimizer="sgd-momentum", dropout=0.1),
        Case(model=bert, batch=32, precision="pure-bf16", optimizer="adamw-fused", checkpointing=True),
        Case(model=bert, batch=8, precision="fp16", accumulation=4, clip=True),
        Case(model=vit, batch=64, precision="bf16", optimizer="adamw-fused"),
        Case(model=vit, batch=32, attention="math"),
        Case(model=vit, batch=64, precision="pure-bf16", attention="flash", dropout=0.1, clip=True),
        Case(model=vit, batch=32, precision="fp16", checkpointing=True, optimizer="rmsprop"),
        Case(model=resnet, batch=128, optimizer="sgd-momentum", probes=True),
        Case(model=resnet, batch=256, precision="bf16", optimizer="sgd-momentum"),
        Case(model=resnet, batch=128, optimizer="adamw", checkpointing=True),
        Case(model=resnet, batch=64, precision="fp16", optimizer="adamw-fused", clip=True, accumulation=2),
        Case(model=resnet, batch=32, precision="pure-bf16", optimizer="adagrad"),
    ]
    return sorted(cases, key=lambda case: not case.probes)
