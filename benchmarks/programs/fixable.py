"""Programs that `benchmarks/fix.py` makes fit: `python fixable.py MODEL --steps 3`. One batch a step, AdamW or SGD."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY = 1000


def _language(kind: str) -> nn.Module:
    import transformers

    names = {"hidden_size": 128, "num_hidden_layers": 8, "num_attention_heads": 4, "vocab_size": VOCABULARY}
    configs = {
        "gpt2": ("GPT2LMHeadModel", transformers.GPT2Config(n_embd=128, n_layer=8, n_head=4, vocab_size=VOCABULARY)),
        "llama": ("LlamaForCausalLM", transformers.LlamaConfig(intermediate_size=512, **names)),
        "bert": ("BertForMaskedLM", transformers.BertConfig(intermediate_size=512, **names)),
        "t5": (
            "T5ForConditionalGeneration",
            transformers.T5Config(d_model=128, d_ff=512, num_layers=4, num_heads=4, d_kv=32, vocab_size=VOCABULARY,
                                  decoder_start_token_id=0),
        ),
    }  # fmt: skip
    name, config = configs[kind]
    return getattr(transformers, name)(config)


class Language(nn.Module):
    """A model of transformers and the loss of a batch of made-up tokens."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.model = _language(kind)

    def forward(self, size: int, device: Any) -> Tensor:
        tokens = torch.randint(VOCABULARY, (size, 128)).to(device)
        return self.model(input_ids=tokens, labels=tokens).loss


class Lora(nn.Module):
    """A linear layer that is frozen, and a low-rank update of it that is trained."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(F.dropout(self.down(x), 0.1, self.training))


class LoraLlama(Language):
    """Llama with low-rank updates of attention."""

    def __init__(self) -> None:
        super().__init__("llama")
        self.model.requires_grad_(False)
        for layer in self.model.model.layers:
            for name in ("q_proj", "v_proj"):
                setattr(layer.self_attn, name, Lora(getattr(layer.self_attn, name)))
        self.model.lm_head.requires_grad_(True)


class Vit(nn.Module):
    """A vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        import transformers

        self.model = transformers.ViTForImageClassification(
            transformers.ViTConfig(
                hidden_size=128, num_hidden_layers=8, num_attention_heads=4, intermediate_size=512, image_size=64,
                patch_size=8,
            )
        )  # fmt: skip

    def forward(self, size: int, device: Any) -> Tensor:
        labels = torch.randint(2, (size,)).to(device)
        return self.model(pixel_values=torch.randn(size, 3, 64, 64).to(device), labels=labels).loss


class Residual(nn.Module):
    """Two convolutions with batch norms beside a shortcut, activations in place."""

    def __init__(self, inner: int, outer: int, *, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1), nn.BatchNorm2d(outer), nn.ReLU(inplace=True),
            nn.Conv2d(outer, outer, 3, 1, 1), nn.BatchNorm2d(outer),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(inner, outer, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


class Unet(nn.Module):
    """A U-Net that predicts noise."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, 1, 1)
        self.down = nn.ModuleList(Residual(width << at, width << (at + 1), stride=2) for at in range(3))
        self.middle = Residual(width << 3, width << 3)
        self.up = nn.ModuleList(Residual((width << (at + 1)) + (width << at), width << at) for at in (2, 1, 0))
        self.leave = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, size: int, device: Any) -> Tensor:
        x = torch.randn(size, 3, 32, 32).to(device)
        skipped = [hidden := self.enter(x)]
        for block in self.down:
            skipped.append(hidden := block(hidden))
        hidden = self.middle(skipped.pop())
        for block in self.up:
            hidden = block(torch.cat([F.interpolate(hidden, scale_factor=2.0), skipped.pop()], 1))
        return F.mse_loss(self.leave(hidden), x)


class Resnet(nn.Module):
    """Eight residual blocks."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width, width, width * 2, width * 2, width * 4, width * 4]
        self.enter = nn.Conv2d(3, width, 3, 1, 1)
        self.blocks = nn.Sequential(
            *(Residual(a, b, stride=1 + (b > a)) for a, b in zip([width, *widths], widths, strict=False))
        )
        self.head = nn.Linear(width * 4, 10)

    def forward(self, size: int, device: Any) -> Tensor:
        hidden = self.blocks(self.enter(torch.randn(size, 3, 32, 32).to(device)))
        return F.cross_entropy(self.head(hidden.mean((2, 3))), torch.randint(10, (size,)).to(device))


class Expert(nn.Module):
    """A layer of experts, of which each token takes one; what it puts aside is the balance of their load."""

    def __init__(self, width: int, experts: int, *, puts_aside: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(experts)
        )
        self.puts_aside = puts_aside
        self.balance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        weights = self.gate(hidden).softmax(-1)
        if self.puts_aside:
            self.balance = weights.mean(0).square().sum()
        outs = torch.stack([expert(hidden) for expert in self.experts], -1)
        return x + (outs * weights.unsqueeze(1)).sum(-1)


class Moe(nn.Module):
    """Dense experts, with the balance put aside by each layer, or left out."""

    def __init__(self, *, puts_aside: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Expert(64, 4, puts_aside=puts_aside) for _ in range(6))

    def forward(self, size: int, device: Any) -> Tensor:
        x = torch.randn(size * 32, 64).to(device)
        for layer in self.layers:
            x = layer(x)
        return x.square().mean() + sum(0.01 * layer.balance for layer in self.layers if layer.balance is not None)


class Gan(nn.Module):
    """A generator and what it is judged by, trained in turn."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(32, width * 64), nn.Unflatten(1, (width, 8, 8)), *(
            nn.Sequential(nn.ConvTranspose2d(width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU()) for _ in range(2)
        ), nn.Conv2d(width, 3, 3, 1, 1), nn.Tanh())  # fmt: skip
        self.judge = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), *(
            nn.Sequential(nn.Conv2d(width, width, 4, 2, 1), nn.LeakyReLU(0.2)) for _ in range(3)
        ), nn.Flatten(), nn.Linear(width * 16, 1))  # fmt: skip


def train_gan(size: int, steps: int, device: Any) -> None:
    """Train both in turn: two steps of optimizers a step of training."""
    both = Gan().to(device)
    made = torch.optim.Adam(both.generator.parameters(), lr=1e-4)
    judged = torch.optim.Adam(both.judge.parameters(), lr=1e-4)
    for step in range(steps):
        fake = both.generator(torch.randn(size, 32).to(device))
        real = torch.randn(size, 3, 32, 32).to(device)
        loss = F.softplus(both.judge(fake.detach())).mean() + F.softplus(-both.judge(real)).mean()
        loss.backward()
        judged.step()
        judged.zero_grad()
        loss = F.softplus(-both.judge(fake)).mean()
        loss.backward()
        made.step()
        made.zero_grad()
        print(f"step {step + 1} loss {loss.item():.6f}")


MODELS = {
    **{kind: (lambda kind=kind: Language(kind)) for kind in ("gpt2", "llama", "bert", "t5")},
    "lora": LoraLlama,
    "vit": Vit,
    "unet": Unet,
    "resnet": Resnet,
    "moe": lambda: Moe(puts_aside=False),
    "moe-balanced": lambda: Moe(puts_aside=True),
}


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=[*MODELS, "gan"])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.model == "gan":
        train_gan(args.batch, args.steps, args.device)
        return
    model = MODELS[args.model]().to(args.device)
    model.train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-3)
    for step in range(args.steps):
        loss = model(args.batch, args.device)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1} loss {loss.item():.6f}", flush=True)
        del loss


if __name__ == "__main__":
    main()
