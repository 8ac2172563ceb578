"""Reads configurations of decoders that are Llama with few changes.

In: `ConfigFields` of a `config.json`. Out: the fields of a `ModelSpec`. What a configuration leaves out has the default
of the `transformers` class of that architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.model.config_fields import ConfigFields, head_width


def read_llama(get: ConfigFields) -> dict[str, Any]:
    """Return Llama, or what has its shape."""
    hidden, heads = get.integer("hidden_size"), get.integer("num_attention_heads")
    bias = get.flag("attention_bias", default=False)
    mlp_bias = get.flag("mlp_bias", default=False)
    head_dim = get.integer("head_dim", default=None)
    return {
        "num_layers": get.layers("num_hidden_layers"),
        "hidden": hidden,
        "num_heads": heads,
        "num_kv_heads": get.integer("num_key_value_heads", default=heads),
        "head_dim": head_width(hidden, heads) if head_dim is None else head_dim,
        "ffn": get.integer("intermediate_size"),
        "vocabulary": get.integer("vocab_size"),
        "max_positions": get.integer("max_position_embeddings", default=None),
        "gated": True,
        "has_fused_qkv": False,
        "activation": get.text("hidden_act", default="silu"),
        "tied": get.flag("tie_word_embeddings", default=False),
        "has_qkv_bias": bias,
        "has_out_bias": bias,
        "has_mlp_bias": mlp_bias,
        "norm": "rms",
        "has_norm_bias": False,
        "attention_dropout": get.number("attention_dropout", default=0.0),
    }


def read_without_bias(get: ConfigFields) -> dict[str, Any]:
    """Mistral, Mixtral, Phi-3: as Llama, and no bias whatever the file says."""
    return read_llama(get) | {"has_qkv_bias": False, "has_out_bias": False, "has_mlp_bias": False}


def _smollm3(get: ConfigFields) -> dict[str, Any]:
    """Return SmolLM3, some of whose layers do not rotate: what a kernel keeps is as large."""
    return read_llama(get.with_defaults({"num_key_value_heads": 4, "tie_word_embeddings": True}))


def _seed_oss(get: ConfigFields) -> dict[str, Any]:
    defaults = {"attention_bias": True, "attention_dropout": 0.1, "head_dim": 128, "num_key_value_heads": 8}
    return read_llama(get.with_defaults(defaults)) | {
        "has_out_bias": get.flag("attention_out_bias", default=False),
        "hidden_dropout": get.number("residual_dropout", default=0.1),
    }


def _glm(get: ConfigFields) -> dict[str, Any]:
    defaults = {"attention_bias": True, "head_dim": 128, "num_key_value_heads": 2}
    spec = read_llama(get.with_defaults(defaults))
    # Half of each head is rotated.
    rotated = spec["head_dim"] // 2
    return spec | {"rotated_dim": rotated, "has_out_bias": False, "has_mlp_bias": False, "has_fused_gate": True}


def _glm4(get: ConfigFields) -> dict[str, Any]:
    return _glm(get) | {"norms_per_layer": 4}


def _cohere(get: ConfigFields) -> dict[str, Any]:
    """Return Cohere's Command: attention and MLP side by side behind one norm without a bias."""
    if get.flag("use_qk_norm", default=False):
        raise MemtraceError("config: Cohere with use_qk_norm is not read", hint="memtrace predict runs the program")
    spec = read_llama(get.with_defaults({"tie_word_embeddings": True}))
    return spec | {"has_mlp_bias": False, "norm": "layer", "norms_per_layer": 1, "is_parallel": True}


def _olmo(get: ConfigFields) -> dict[str, Any]:
    """Return OLMo, whose norms have neither weight nor bias."""
    return read_llama(get) | {"has_mlp_bias": False, "norm": "layer", "has_norm_weight": False}


def _olmo2(get: ConfigFields) -> dict[str, Any]:
    return read_llama(get) | {"qk_norm": "full", "has_mlp_bias": False}


def _helium(get: ConfigFields) -> dict[str, Any]:
    return read_llama(get.with_defaults({"head_dim": 128})) | {"has_out_bias": False}


def _ernie(get: ConfigFields) -> dict[str, Any]:
    bias = get.flag("use_bias", default=False)
    spec = read_llama(get.with_defaults({"head_dim": 128, "num_key_value_heads": 2, "tie_word_embeddings": True}))
    return spec | {"has_qkv_bias": bias, "has_out_bias": bias, "has_mlp_bias": bias, "attention_dropout": 0.0}


def _exaone4(get: ConfigFields) -> dict[str, Any]:
    return read_without_bias(get) | {"qk_norm": "head"}


LLAMA_LIKE: dict[str, Callable[[ConfigFields], dict[str, Any]]] = {
    "cohere": _cohere,
    "cohere2": _cohere,
    "ernie4_5": _ernie,
    "exaone4": _exaone4,
    "glm": _glm,
    "glm4": _glm4,
    "granite": read_llama,
    "helium": _helium,
    "llama": read_llama,
    "mistral": read_without_bias,
    "olmo": _olmo,
    "olmo2": _olmo2,
    "olmo3": _olmo2,
    "seed_oss": _seed_oss,
    "smollm3": _smollm3,
}
"""By `model_type`."""
