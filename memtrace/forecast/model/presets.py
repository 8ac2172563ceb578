"""Well-known models by name: their configurations, as published, reduced to what decides memory.

In: a name. Out: a `ModelSpec`, read by the same reader as a `config.json`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.model.config import UNREAD, read_config, refuse_unread
from memtrace.forecast.model.spec import ModelSpec


def preset(name: str) -> ModelSpec:
    """Return a well-known model.

    >>> preset("llama-3-8b").num_kv_heads
    8

    Raises:
        MemtraceError: there is no such preset; the hint names the nearest.
    """
    if name not in PRESETS:
        family = next((kind for kind in UNREAD if f"-{kind}-".replace("_", "-") in f"-{name}-"), None)
        if family is not None:
            refuse_unread(family)
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4)
        raise MemtraceError(f"there is no preset {name[:60]!r}", hint=f"try {', '.join(near or PRESETS)}")
    return read_config(PRESETS[name], name=name)


def _gpt2(layers: int, hidden: int, heads: int, **more: Any) -> Mapping[str, Any]:
    return {"model_type": "gpt2", "n_layer": layers, "n_embd": hidden, "n_head": heads, **more}


def _decoder(
    kind: str, shape: tuple[int, int, int, int, int], vocabulary: int, positions: int, **more: Any
) -> Mapping[str, Any]:
    """Return a configuration; the shape is layers, hidden size, heads, heads of keys and values, width of the MLP."""
    layers, hidden, heads, kv_heads, ffn = shape
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        **more,
    }


def _gpt_neo(layers: int, hidden: int, heads: int) -> Mapping[str, Any]:
    return {"model_type": "gpt_neo", "num_layers": layers, "hidden_size": hidden, "num_heads": heads}


def _opt(layers: int, hidden: int, heads: int, **more: Any) -> Mapping[str, Any]:
    shape = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads, "ffn_dim": 4 * hidden}
    return {"model_type": "opt", "vocab_size": 50272, **shape, **more}


def _bert(layers: int, hidden: int, heads: int) -> Mapping[str, Any]:
    shape = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    return {"model_type": "bert", "intermediate_size": 4 * hidden, **shape}


def _t5(
    shape: tuple[int, int, int, int, int], *, kind: str = "t5", vocabulary: int = 32128, is_flan: bool = False
) -> Mapping[str, Any]:
    """Return a configuration of T5's; the shape is layers of each stack, hidden size, heads, width of a head, MLP."""
    names = ("num_layers", "d_model", "num_heads", "d_kv", "d_ff")
    changed = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if is_flan else {}
    return {"model_type": kind, "vocab_size": vocabulary, **dict(zip(names, shape, strict=True)), **changed}


def _bart(kind: str, shape: tuple[int, int, int, int], vocabulary: int) -> Mapping[str, Any]:
    """Return a configuration of BART's; the shape is layers of each stack, hidden size, heads, MLP."""
    layers, hidden, heads, ffn = shape
    sizes = {"layers": layers, "attention_heads": heads, "ffn_dim": ffn}
    stacks = {f"{name}_{field}": size for name in ("encoder", "decoder") for field, size in sizes.items()}
    return {"model_type": kind, "d_model": hidden, "vocab_size": vocabulary, **stacks}


_FLAN_SHAPES = {
    "small": (8, 512, 6, 64, 1024),
    "base": (12, 768, 12, 64, 2048),
    "large": (24, 1024, 16, 64, 2816),
    "xl": (24, 2048, 32, 64, 5120),
    "xxl": (24, 4096, 64, 64, 10240),
}
_DEEPSEEK = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}


def _latent(
    kind: str, shape: tuple[int, int, int, int], vocabulary: int, positions: int, **more: Any
) -> Mapping[str, Any]:
    """Return a configuration of DeepSeek's; the shape is layers, hidden size, heads, width of a dense MLP."""
    layers, hidden, heads, ffn = shape
    return {**_decoder(kind, (layers, hidden, heads, heads, ffn), vocabulary, positions), **_DEEPSEEK, **more}


_DEEPSEEK_V2 = {"q_lora_rank": 1536, "n_routed_experts": 160, "num_experts_per_tok": 6, "moe_intermediate_size": 1536}
_DEEPSEEK_V2_LITE = {
    "q_lora_rank": None,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1408,
}
_DEEPSEEK_V3 = {"q_lora_rank": 1536, "n_routed_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 2048}
_GPT_OSS = {"head_dim": 64, "num_experts_per_tok": 4}
_NEW_FALCON = {"new_decoder_architecture": True}
_TIED = {"tie_word_embeddings": True}
_QWEN3_MOE = {"num_experts_per_tok": 8, "num_experts": 128, "head_dim": 128, "moe_intermediate_size": 1536}
_GEMMA3_VOCABULARY = 262208
"""Of the Gemma 3 models that also read images; 64 rows more than that of the others."""
_QWEN3_SMALL_MOE = _QWEN3_MOE | {"moe_intermediate_size": 768}

PRESETS: dict[str, Mapping[str, Any]] = {
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "gpt3-175b": _gpt2(96, 12288, 96, n_positions=2048),
    "llama-2-7b": _decoder("llama", (32, 4096, 32, 32, 11008), 32000, 4096),
    "llama-2-13b": _decoder("llama", (40, 5120, 40, 40, 13824), 32000, 4096),
    "llama-2-70b": _decoder("llama", (80, 8192, 64, 8, 28672), 32000, 4096),
    "llama-3-8b": _decoder("llama", (32, 4096, 32, 8, 14336), 128256, 8192),
    "llama-3-70b": _decoder("llama", (80, 8192, 64, 8, 28672), 128256, 8192),
    "llama-3.1-8b": _decoder("llama", (32, 4096, 32, 8, 14336), 128256, 131072),
    "llama-3.1-70b": _decoder("llama", (80, 8192, 64, 8, 28672), 128256, 131072),
    "llama-3.1-405b": _decoder("llama", (126, 16384, 128, 8, 53248), 128256, 131072),
    "llama-3.2-1b": _decoder("llama", (16, 2048, 32, 8, 8192), 128256, 131072, head_dim=64, **_TIED),
    "llama-3.2-3b": _decoder("llama", (28, 3072, 24, 8, 8192), 128256, 131072, **_TIED),
    "llama-3.3-70b": _decoder("llama", (80, 8192, 64, 8, 28672), 128256, 131072),
    "mistral-7b": _decoder("mistral", (32, 4096, 32, 8, 14336), 32000, 32768),
    "mixtral-8x7b": _decoder("mixtral", (32, 4096, 32, 8, 14336), 32000, 32768, num_local_experts=8),
    "mixtral-8x22b": _decoder("mixtral", (56, 6144, 48, 8, 16384), 32768, 65536, num_local_experts=8),
    "qwen2.5-0.5b": _decoder("qwen2", (24, 896, 14, 2, 4864), 151936, 32768, **_TIED),
    "qwen2.5-1.5b": _decoder("qwen2", (28, 1536, 12, 2, 8960), 151936, 131072, **_TIED),
    "qwen2.5-7b": _decoder("qwen2", (28, 3584, 28, 4, 18944), 152064, 131072),
    "qwen2.5-14b": _decoder("qwen2", (48, 5120, 40, 8, 13824), 152064, 131072),
    "qwen2.5-32b": _decoder("qwen2", (64, 5120, 40, 8, 27648), 152064, 131072),
    "qwen2.5-72b": _decoder("qwen2", (80, 8192, 64, 8, 29568), 152064, 131072),
    "qwen3-0.6b": _decoder("qwen3", (28, 1024, 16, 8, 3072), 151936, 40960, **_TIED),
    "qwen3-1.7b": _decoder("qwen3", (28, 2048, 16, 8, 6144), 151936, 40960, **_TIED),
    "qwen3-4b": _decoder("qwen3", (36, 2560, 32, 8, 9728), 151936, 40960, **_TIED),
    "qwen3-8b": _decoder("qwen3", (36, 4096, 32, 8, 12288), 151936, 40960),
    "qwen3-14b": _decoder("qwen3", (40, 5120, 40, 8, 17408), 151936, 40960),
    "qwen3-32b": _decoder("qwen3", (64, 5120, 64, 8, 25600), 151936, 40960),
    "qwen3-30b-a3b": _decoder("qwen3_moe", (48, 2048, 32, 4, 6144), 151936, 40960, **_QWEN3_SMALL_MOE),
    "qwen3-235b-a22b": _decoder("qwen3_moe", (94, 4096, 64, 4, 12288), 151936, 40960, **_QWEN3_MOE),
    "deepseek-v2": _latent(
        "deepseek_v2",
        (60, 5120, 128, 12288),
        102400,
        163840,
        first_k_dense_replace=1,
        n_shared_experts=2,
        **_DEEPSEEK_V2,
    ),
    "deepseek-v2-lite": _latent(
        "deepseek_v2",
        (27, 2048, 16, 10944),
        102400,
        163840,
        first_k_dense_replace=1,
        n_shared_experts=2,
        **_DEEPSEEK_V2_LITE,
    ),
    "deepseek-v3": _latent(
        "deepseek_v3", (61, 7168, 128, 18432), 129280, 163840, first_k_dense_replace=3, **_DEEPSEEK_V3
    ),
    "gpt-oss-20b": _decoder("gpt_oss", (24, 2880, 64, 8, 2880), 201088, 131072, num_local_experts=32, **_GPT_OSS),
    "gpt-oss-120b": _decoder("gpt_oss", (36, 2880, 64, 8, 2880), 201088, 131072, num_local_experts=128, **_GPT_OSS),
    "gemma-2b": _decoder("gemma", (18, 2048, 8, 1, 16384), 256000, 8192),
    "gemma-7b": _decoder("gemma", (28, 3072, 16, 16, 24576), 256000, 8192),
    "gemma-2-2b": _decoder("gemma2", (26, 2304, 8, 4, 9216), 256000, 8192),
    "gemma-2-9b": _decoder("gemma2", (42, 3584, 16, 8, 14336), 256000, 8192),
    "gemma-2-27b": _decoder("gemma2", (46, 4608, 32, 16, 36864), 256000, 8192, head_dim=128),
    "gemma-3-270m": _decoder("gemma3_text", (18, 640, 4, 1, 2048), 262144, 32768),
    "gemma-3-1b": _decoder("gemma3_text", (26, 1152, 4, 1, 6912), 262144, 32768),
    "gemma-3-4b": _decoder("gemma3_text", (34, 2560, 8, 4, 10240), _GEMMA3_VOCABULARY, 131072),
    "gemma-3-12b": _decoder("gemma3_text", (48, 3840, 16, 8, 15360), _GEMMA3_VOCABULARY, 131072),
    "gemma-3-27b": _decoder("gemma3_text", (62, 5376, 32, 16, 21504), _GEMMA3_VOCABULARY, 131072, head_dim=128),
    "phi-2": _decoder("phi", (32, 2560, 32, 32, 10240), 51200, 2048),
    "phi-3-mini": _decoder("phi3", (32, 3072, 32, 32, 8192), 32064, 4096),
    "gpt-neo-125m": _gpt_neo(12, 768, 12),
    "gpt-neo-1.3b": _gpt_neo(24, 2048, 16),
    "gpt-neo-2.7b": _gpt_neo(32, 2560, 20),
    "gpt-neox-20b": _decoder("gpt_neox", (44, 6144, 64, 64, 24576), 50432, 2048),
    "pythia-1.4b": _decoder("gpt_neox", (24, 2048, 16, 16, 8192), 50304, 2048),
    "pythia-6.9b": _decoder("gpt_neox", (32, 4096, 32, 32, 16384), 50432, 2048),
    "falcon-7b": _decoder("falcon", (32, 4544, 71, 1, 18176), 65024, 2048),
    "falcon-40b": _decoder("falcon", (60, 8192, 128, 8, 32768), 65024, 2048, num_kv_heads=8, **_NEW_FALCON),
    "bloom-176b": {"model_type": "bloom", "n_layer": 70, "hidden_size": 14336, "n_head": 112, "vocab_size": 250880},
    "opt-125m": _opt(12, 768, 12),
    "opt-350m": _opt(24, 1024, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
    "opt-6.7b": _opt(32, 4096, 32),
    "opt-66b": _opt(64, 9216, 72),
    "bert-base": _bert(12, 768, 12),
    "bert-large": _bert(24, 1024, 16),
    "bart-base": _bart("bart", (6, 768, 12, 3072), 50265),
    "bart-large": _bart("bart", (12, 1024, 16, 4096), 50265),
    "mbart-large": _bart("mbart", (12, 1024, 16, 4096), 250027),
    "t5-small": _t5((6, 512, 8, 64, 2048)),
    "t5-base": _t5((12, 768, 12, 64, 3072)),
    "t5-large": _t5((24, 1024, 16, 64, 4096)),
    "t5-3b": _t5((24, 1024, 32, 128, 16384)),
    "t5-11b": _t5((24, 1024, 128, 128, 65536)),
    **{f"flan-t5-{name}": _t5(shape, is_flan=True) for name, shape in _FLAN_SHAPES.items()},
    **{f"mt5-{name}": _t5(shape, kind="mt5", vocabulary=250112, is_flan=True) for name, shape in _FLAN_SHAPES.items()},
}
"""Configurations by preset name: of each the published `config.json` on the Hugging Face Hub, of `gpt3-175b` the paper.

Of models that also read images it is the language model.
"""
