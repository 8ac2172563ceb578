"""Architectures of transformers, torchvision and timm, each trained two steps in three settings.

Random weights, few and narrow layers. `benchmarks/architectures.py` predicts each by both engines.

python benchmarks/programs/architectures.py [NAME ...]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from many_models import HIDDEN, INNER, LAYERS, VOCABULARY, Case, train_all
from torch import nn

TOKENS, CLASSES, IMAGE = 128, 10, 224
_TEXT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": INNER,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_TEXT, "num_key_value_heads": 2}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 128}
_BOTH_SIDES: dict[str, Any] = {
    "d_model": HIDDEN,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": INNER,
    "decoder_ffn_dim": INNER,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
CAUSAL: dict[str, dict[str, Any]] = {
    "gpt_oss": {**_GROUPED, **_EXPERTS, "num_local_experts": 4, "head_dim": 64},
    "deepseek_v3": {
        **_TEXT, **_EXPERTS, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "q_lora_rank": 64,
        "kv_lora_rank": 64, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 64,
        "num_key_value_heads": 4, "first_k_dense_replace": 1,
    },
    "qwen3_moe": {**_GROUPED, **_EXPERTS, "num_experts": 4, "head_dim": 64},
    "gemma3_text": {**_GROUPED, "head_dim": 64},
    "falcon": _TEXT,
    "mpt": {"d_model": HIDDEN, "n_heads": 4, "n_layers": LAYERS, "vocab_size": VOCABULARY},
    "mamba": {**_TEXT, "state_size": 8},
    "rwkv": {**_TEXT, "attention_hidden_size": HIDDEN},
    "cohere": _GROUPED,
    "stablelm": _GROUPED,
    "xlnet": {"d_model": HIDDEN, "n_layer": LAYERS, "n_head": 4, "d_inner": INNER, "vocab_size": VOCABULARY},
}  # fmt: skip
MASKED: dict[str, dict[str, Any]] = {
    "modernbert": _TEXT,
    "albert": {**_TEXT, "embedding_size": 64},
    "longformer": {**_TEXT, "attention_window": 32, "max_position_embeddings": 512},
    "big_bird": {**_TEXT, "block_size": 16, "num_random_blocks": 1, "max_position_embeddings": 512},
}
SEQUENCES: dict[str, dict[str, Any]] = {
    "mt5": {
        "d_model": HIDDEN, "num_layers": LAYERS, "num_heads": 4, "d_ff": INNER, "d_kv": 64, "vocab_size": VOCABULARY,
        "decoder_start_token_id": 0,
    },
    "pegasus": _BOTH_SIDES,
}  # fmt: skip
CLASSIFIERS = ("resnet50", "inception_v3", "googlenet", "maxvit_t", "swin_v2_t", "vit_b_16", "mnasnet0_5")
SEGMENTERS = ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
    "fcos_resnet50_fpn",
)
TIMM = (
    "vit_tiny_patch16_224", "mixer_s32_224", "efficientvit_b0", "mobilenetv4_conv_small", "convnextv2_atto",
    "xcit_nano_12_p16_224", "levit_128s", "coat_tiny", "nfnet_l0", "ghostnet_100",
)  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "float32 AdamW": {},
    "autocast bf16 fused": {"autocast": torch.bfloat16, "options": {"fused": True}},
    "autocast fp16 SGD": {"autocast": torch.float16, "optimizer": "SGD", "options": {"momentum": 0.9}},
}
"""By name: what differs from a training in float32 with AdamW. The last has a gradient scaler."""


class _WithLoss(nn.Module):
    """A module that is given inputs and a target, and returns the loss."""

    def __init__(self, inner: nn.Module, loss: Callable[[Any, Any], torch.Tensor]) -> None:
        super().__init__()
        self.inner, self.loss = inner, loss

    def forward(self, x: Any, target: Any) -> torch.Tensor:
        """Return the loss."""
        return self.loss(self.inner(*x) if isinstance(x, tuple) else self.inner(x), target)


def _of_classes(out: Any, target: Any) -> torch.Tensor:
    out = out["out"] if isinstance(out, dict) else out[0] if isinstance(out, tuple) else out
    return nn.functional.cross_entropy(out.float(), target)


def _images(size: int = IMAGE, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, size, size)


def _classes(*shape: int) -> torch.Tensor:
    return torch.randint(0, CLASSES, shape)


def _tokens() -> dict[str, Any]:
    ids = torch.randint(3, VOCABULARY, (2, TOKENS))
    return {"input_ids": ids, "labels": ids.clone()}


def _boxed() -> dict[str, Any]:
    """Return images with two objects each, as torchvision's detectors are given them."""
    target = {
        "boxes": torch.tensor([[10.0, 10.0, 100.0, 100.0], [40.0, 50.0, 180.0, 200.0]]),
        "labels": torch.tensor([1, 2]),
        "masks": torch.ones(2, IMAGE, IMAGE, dtype=torch.uint8),
    }
    return {"images": [torch.rand(3, IMAGE, IMAGE) for _ in range(2)], "targets": [dict(target) for _ in range(2)]}


def _of_transformers(name: str, kind: str, fields: dict[str, Any], batch: Callable[[], dict[str, Any]]) -> Case:
    def build() -> nn.Module:
        import transformers

        config = transformers.AutoConfig.for_model(name, **fields)
        model: nn.Module = getattr(transformers, kind).from_config(config)
        return model

    return Case(name=name, build=build, batch=batch)


def _transformers() -> Iterator[Case]:
    for kind, found in (
        ("AutoModelForCausalLM", CAUSAL), ("AutoModelForMaskedLM", MASKED), ("AutoModelForSeq2SeqLM", SEQUENCES)
    ):  # fmt: skip
        for name, fields in found.items():
            yield _of_transformers(name, kind, fields, _tokens)
    speech = {**_BOTH_SIDES, "max_source_positions": 100, "num_mel_bins": 80}
    yield _of_transformers(
        "whisper", "AutoModelForSpeechSeq2Seq", speech,
        lambda: {"input_features": torch.rand(2, 80, 200), "labels": torch.randint(3, VOCABULARY, (2, 32))},
    )  # fmt: skip
    yield _of_transformers(
        "wav2vec2", "AutoModelForCTC", {**_TEXT, "vocab_size": 32, "ctc_zero_infinity": True},
        lambda: {"input_values": torch.rand(2, 16000), "labels": torch.randint(3, 32, (2, 12))},
    )  # fmt: skip
    yield _of_transformers(
        "dinov2", "AutoModelForImageClassification", {**_TEXT, "num_labels": CLASSES},
        lambda: {"pixel_values": _images(), "labels": _classes(2)},
    )  # fmt: skip
    yield _of_transformers(
        "segformer", "AutoModelForSemanticSegmentation", {"num_labels": CLASSES},
        lambda: {"pixel_values": _images(), "labels": _classes(2, IMAGE, IMAGE)},
    )  # fmt: skip


def _clip() -> Case:
    def build() -> nn.Module:
        import transformers

        side = {
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "intermediate_size": INNER,
        }
        config = transformers.CLIPConfig(
            text_config={**side, "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}, vision_config=side
        )
        model: nn.Module = transformers.CLIPModel(config)
        return model

    def batch() -> dict[str, Any]:
        ids = torch.randint(3, VOCABULARY, (2, 32))
        return {"input_ids": ids, "pixel_values": _images(), "return_loss": True}

    return Case(name="clip", build=build, batch=batch)


def _torchvision() -> Iterator[Case]:
    def model(name: str, **options: Any) -> nn.Module:
        import torchvision

        found: nn.Module = torchvision.models.get_model(name, weights=None, **options)
        return found

    for name in CLASSIFIERS:
        size = 299 if name == "inception_v3" else IMAGE
        yield Case(
            name=name,
            build=lambda name=name: _WithLoss(model(name, num_classes=CLASSES), _of_classes),
            batch=lambda size=size: {"x": _images(size), "target": _classes(2)},
        )
    for name in SEGMENTERS:
        yield Case(
            name=name,
            build=lambda name=name: _WithLoss(
                model(name, weights_backbone=None, num_classes=CLASSES), _of_classes
            ),
            batch=lambda: {"x": _images(), "target": _classes(2, IMAGE, IMAGE)},
        )  # fmt: skip
    for name in DETECTORS:
        yield Case(
            name=name,
            build=lambda name=name: _Detector(
                model(name, weights_backbone=None, num_classes=CLASSES, trainable_backbone_layers=None)
            ),
            batch=_boxed,
        )
    yield Case(
        name="r3d_18",
        build=lambda: _WithLoss(model("r3d_18", num_classes=CLASSES), _of_classes),
        batch=lambda: {"x": torch.rand(2, 3, 8, 112, 112), "target": _classes(2)},
    )
    yield Case(
        name="raft_small",
        build=lambda: _WithLoss(
            model("raft_small"), lambda flows, true: sum((one - true).abs().mean() for one in flows)
        ),
        batch=lambda: {"x": (_images(128), _images(128)), "target": torch.rand(2, 2, 128, 128)},
    )


class _Detector(nn.Module):
    """A detector of torchvision, whose losses are added up."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Any, targets: Any) -> torch.Tensor:
        """Return the loss."""
        losses: dict[str, torch.Tensor] = self.inner(images, targets)
        return torch.stack(list(losses.values())).sum()


def _timm() -> Iterator[Case]:
    def build(name: str) -> nn.Module:
        import timm

        return _WithLoss(timm.create_model(name, num_classes=CLASSES), _of_classes)

    for name in TIMM:
        yield Case(
            name=f"timm {name}",
            build=lambda name=name: build(name),
            batch=lambda: {"x": _images(), "target": _classes(2)},
        )


def architectures() -> list[Case]:
    """Return every architecture in its plainest setting."""
    return [*_transformers(), _clip(), *_torchvision(), *_timm()]


def in_each_setting() -> Iterator[Case]:
    """Yield every architecture in every setting."""
    for case in architectures():
        for name, how in SETTINGS.items():
            yield replace(case, name=f"{case.name}, {name}", **how)


if __name__ == "__main__":
    train_all(in_each_setting())
