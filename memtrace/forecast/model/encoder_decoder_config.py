"""Reads configurations of models that are an encoder and a decoder: the T5 family, BART, mBART, M2M100.

In: `ConfigFields` of a `config.json`. Out: the fields of a `ModelSpec`, that of the decoder with the encoder's in it.
"""

from __future__ import annotations

from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.model.config_fields import ConfigFields, head_width, shown
from memtrace.forecast.model.spec import ModelSpec

_MT5_DEFAULTS = {"num_layers": 8, "num_heads": 6, "d_ff": 1024, "vocab_size": 250112, "feed_forward_proj": "gated-gelu"}


def read_t5(get: ConfigFields, kind: str = "t5") -> dict[str, Any]:
    """Return T5, T5 v1.1 (Flan), or what has its shape."""
    layers = get.layers("num_layers", default=6)
    shape = _t5_stack(get) | {"has_positions_each_layer": kind == "umt5"}
    encoder = ModelSpec(name="encoder", architecture=kind, num_layers=layers, has_head=False, **shape)
    return shape | {
        "num_layers": get.layers("num_decoder_layers", default=layers),
        "norms_per_layer": 3,
        "tied": get.flag("tie_word_embeddings", default=True),
        "encoder": encoder,
    }


def read_mt5(get: ConfigFields) -> dict[str, Any]:
    """Return mT5: T5 v1.1 with other defaults."""
    return read_t5(get.with_defaults(_MT5_DEFAULTS), "mt5")


def read_umt5(get: ConfigFields) -> dict[str, Any]:
    """Return umT5: mT5 with a table of learned scores in each layer."""
    return read_t5(get.with_defaults(_MT5_DEFAULTS), "umt5")


def read_bart(get: ConfigFields, kind: str = "bart") -> dict[str, Any]:
    """Return BART, whose norms follow attention and MLP; mBART's precede them, and one stands at the end."""
    encoder = ModelSpec(name="encoder", architecture=kind, has_head=False, **_bart_stack(get, "encoder", kind))
    tied = get.flag("tie_word_embeddings", default=True)
    return _bart_stack(get, "decoder", kind) | {"norms_per_layer": 3, "tied": tied, "encoder": encoder}


def read_mbart(get: ConfigFields) -> dict[str, Any]:
    """Return mBART."""
    return read_bart(get, "mbart")


def read_m2m(get: ConfigFields) -> dict[str, Any]:
    """Return M2M100 or NLLB: mBART whose positions are no parameters."""
    defaults = {"vocab_size": 128112, "activation_function": "relu", "attention_dropout": 0.1}
    return read_bart(get.with_defaults(defaults), "m2m_100")


def _bart_stack(get: ConfigFields, name: str, kind: str) -> dict[str, Any]:
    hidden, heads = get.integer("d_model", default=1024), get.integer(f"{name}_attention_heads", default=16)
    positions, dropout = get.integer("max_position_embeddings", default=1024), get.number("dropout", default=0.1)
    return {
        "num_layers": get.layers(f"{name}_layers", default=12),
        "hidden": hidden,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": head_width(hidden, heads),
        "ffn": get.integer(f"{name}_ffn_dim", default=4096),
        "vocabulary": get.integer("vocab_size", default=50265),
        "max_positions": positions,
        # Two rows more than positions: BART counts from 2 on.
        "learned_positions": 0 if kind == "m2m_100" else positions + 2,
        "activation": get.text("activation_function", default="gelu"),
        "has_fused_qkv": False,
        "has_final_norm": kind != "bart",
        "has_embedding_norm": kind != "m2m_100",
        "embedding_dropout": dropout,
        "attention_dropout": get.number("attention_dropout", default=0.0),
        "hidden_dropout": dropout,
        "inner_dropout": get.number("activation_dropout", default=0.0),
    }


def _t5_stack(get: ConfigFields) -> dict[str, Any]:
    """Return what encoder and decoder have in common."""
    dropout = get.number("dropout_rate", default=0.1)
    heads = get.integer("num_heads", default=8)
    gated, activation = _feed_forward(get.text("feed_forward_proj", default="relu"))
    return {
        "hidden": get.integer("d_model", default=512),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": get.integer("d_kv", default=64),
        "ffn": get.integer("d_ff", default=2048),
        "vocabulary": get.integer("vocab_size", default=32128),
        "position_buckets": get.integer("relative_attention_num_buckets", default=32),
        "gated": gated,
        "activation": activation,
        "has_fused_qkv": False,
        "has_qkv_bias": False,
        "has_out_bias": False,
        "has_mlp_bias": False,
        "norm": "rms",
        "has_norm_bias": False,
        "embedding_dropout": dropout,
        "attention_dropout": dropout,
        "hidden_dropout": dropout,
        "inner_dropout": dropout,
        "final_dropout": dropout,
    }


def _feed_forward(name: str) -> tuple[bool, str]:
    """Return whether the MLP has a gate, and its function."""
    *before, last = name.split("-")
    if before not in ([], ["gated"]) or not last:
        raise MemtraceError(f"config: feed_forward_proj must be a function, or gated- and one, not {shown(name)}")
    # The published files mean the one that is written out.
    return bool(before), "gelu_new" if name == "gated-gelu" else last
