"""Reads a `config.json` of Hugging Face `transformers` into a `ModelSpec`.

In: the decoded JSON. Out: a spec. One reader an architecture; what a configuration leaves out has the default of the
`transformers` class of that architecture. The file is from outside: every value is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeGuard

from memtrace.errors import MemtraceError
from memtrace.forecast.model.config_fields import ConfigFields, head_width, shown
from memtrace.forecast.model.decoder_configs import LLAMA_LIKE, read_llama, read_without_bias
from memtrace.forecast.model.encoder_decoder_config import read_bart, read_m2m, read_mbart, read_mt5, read_t5, read_umt5
from memtrace.forecast.model.spec import ModelSpec

SUPPORTED_HINT = (
    "memtrace predict runs the program itself, without a GPU; --params estimates from a number of parameters; memtrace "
    "estimate reads: {}"
)


def read_config(config: Mapping[str, Any], *, name: str | None = None) -> ModelSpec:
    """Return the spec that a configuration describes.

    >>> read_config({"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100}).ffn
    256

    Raises:
        MemtraceError: the architecture is not known, or a value is missing or impossible.
    """
    if not isinstance(config, Mapping):
        raise MemtraceError("config: not a JSON object")
    inner = config.get("text_config")
    if isinstance(inner, Mapping) and _is_known(inner.get("model_type")):
        # A model of text and images: memtrace estimates its language model.
        config = inner
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in UNREAD:
        refuse_unread(kind)
    if not _is_known(kind):
        hint = SUPPORTED_HINT.format(", ".join(sorted(READERS)))
        raise MemtraceError(f"config: the architecture {shown(kind)} is not known", hint=hint)
    return ModelSpec(
        name=name or str(config.get("_name_or_path") or kind),
        architecture=kind,
        **READERS[kind](ConfigFields(config)),
    )


def refuse_unread(kind: str) -> NoReturn:
    """Raise a `MemtraceError` that says why an architecture of `UNREAD` is not read.

    Raises:
        MemtraceError: always.
    """
    hint = "memtrace predict runs the program itself, without a GPU; --params estimates from a number of parameters"
    raise MemtraceError(f"config: {kind} is not read: {UNREAD[kind]}", hint=hint)


def _is_known(kind: Any) -> TypeGuard[str]:
    """Return whether a value names an architecture; not every value may even be looked up."""
    return isinstance(kind, str) and kind in READERS


def _gpt2(get: ConfigFields) -> dict[str, Any]:
    hidden, heads = get.integer("n_embd", "hidden_size", default=768), get.integer("n_head", default=12)
    positions = get.integer("n_positions", default=1024)
    return {
        "num_layers": get.layers("n_layer", default=12),
        "hidden": hidden,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": head_width(hidden, heads),
        "ffn": get.integer("n_inner", default=4 * hidden),
        "vocabulary": get.integer("vocab_size", default=50257),
        "max_positions": positions,
        "learned_positions": positions,
        "activation": get.text("activation_function", default="gelu_new"),
        "tied": get.flag("tie_word_embeddings", default=True),
        "embedding_dropout": get.number("embd_pdrop", default=0.1),
        "attention_dropout": get.number("attn_pdrop", default=0.1),
        "hidden_dropout": get.number("resid_pdrop", default=0.1),
    }


def _gpt_bigcode(get: ConfigFields) -> dict[str, Any]:
    spec = _gpt2(get) | {"activation": get.text("activation_function", default="gelu_pytorch_tanh")}
    return spec | {"num_kv_heads": 1 if get.flag("multi_query", default=True) else spec["num_heads"]}


def _gpt_neo(get: ConfigFields) -> dict[str, Any]:
    hidden, heads = get.integer("hidden_size", default=2048), get.integer("num_heads", default=16)
    positions = get.integer("max_position_embeddings", default=2048)
    return {
        "num_layers": get.layers("num_layers", default=24),
        "hidden": hidden,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": head_width(hidden, heads),
        "ffn": get.integer("intermediate_size", default=4 * hidden),
        "vocabulary": get.integer("vocab_size", default=50257),
        "max_positions": positions,
        "learned_positions": positions,
        "activation": get.text("activation_function", default="gelu_new"),
        "tied": get.flag("tie_word_embeddings", default=True),
        "has_fused_qkv": False,
        "has_qkv_bias": False,
        "embedding_dropout": get.number("embed_dropout", default=0.0),
        "attention_dropout": get.number("attention_dropout", default=0.0),
        "hidden_dropout": get.number("resid_dropout", default=0.0),
    }


def _gptj(get: ConfigFields) -> dict[str, Any]:
    spec = _gpt2(get) | {"learned_positions": 0, "tied": get.flag("tie_word_embeddings", default=False)}
    spec |= {name: get.number(key, default=0.0) for name, key in _GPT2_DROPOUTS.items()}
    biases = {"has_fused_qkv": False, "has_qkv_bias": False, "has_out_bias": False, "num_head_biases": 1}
    return spec | biases | {"norms_per_layer": 1, "is_parallel": True}


_GPT2_DROPOUTS = {"embedding_dropout": "embd_pdrop", "attention_dropout": "attn_pdrop", "hidden_dropout": "resid_pdrop"}


def _phi3(get: ConfigFields) -> dict[str, Any]:
    return read_without_bias(get) | {
        "has_fused_qkv": True,
        "has_fused_gate": True,
        "hidden_dropout": get.number("resid_pdrop", default=0.0),
        "embedding_dropout": get.number("embd_pdrop", default=0.0),
    }


def _qwen2(get: ConfigFields) -> dict[str, Any]:
    return read_llama(get) | {"has_qkv_bias": True, "has_out_bias": False, "has_mlp_bias": False}


def _qwen3(get: ConfigFields) -> dict[str, Any]:
    head_dim = get.integer("head_dim", default=128)
    return read_llama(get) | {"head_dim": head_dim, "qk_norm": "head", "has_mlp_bias": False}


def _gemma(get: ConfigFields) -> dict[str, Any]:
    spec = read_llama(get) | {"head_dim": get.integer("head_dim", default=256), "has_mlp_bias": False}
    activation = get.text("hidden_activation", "hidden_act", default="gelu_pytorch_tanh")
    return spec | {"tied": get.flag("tie_word_embeddings", default=True), "activation": activation}


def _gemma2(get: ConfigFields) -> dict[str, Any]:
    caps = {"caps_scores": get.is_set("attn_logit_softcapping"), "caps_logits": get.is_set("final_logit_softcapping")}
    return _gemma(get) | {"norms_per_layer": 4} | caps


def _gemma3(get: ConfigFields) -> dict[str, Any]:
    return _gemma2(get) | {"qk_norm": "head"}


def _mixtral(get: ConfigFields) -> dict[str, Any]:
    spec = read_without_bias(get)
    return spec | {
        "num_experts": get.integer("num_local_experts", default=8),
        "experts_per_token": get.integer("num_experts_per_tok", default=2),
        "expert_ffn": spec["ffn"],
    }


def _qwen_moe(get: ConfigFields, attention: dict[str, Any]) -> dict[str, Any]:
    step, dense = get.integer("decoder_sparse_step", default=1), get.integers("mlp_only_layers")
    layers = range(attention["num_layers"])
    sparse = [at for at in layers if at not in dense and step and (at + 1) % step == 0]
    return attention | {
        "num_experts": get.integer("num_experts", "num_local_experts"),
        "experts_per_token": get.integer("num_experts_per_tok"),
        "expert_ffn": get.integer("moe_intermediate_size"),
        "num_dense_layers": attention["num_layers"] - len(sparse),
    }


def _qwen2_moe(get: ConfigFields) -> dict[str, Any]:
    shared = get.integer("shared_expert_intermediate_size")
    bias = {"has_qkv_bias": get.flag("qkv_bias", default=True)}
    return _qwen_moe(get, _qwen2(get) | bias) | {"shared_ffn": shared, "has_shared_gate": True}


def _qwen3_moe(get: ConfigFields) -> dict[str, Any]:
    attention = read_llama(get) | {"qk_norm": "head", "has_mlp_bias": False}
    return _qwen_moe(get, attention)


def _gpt_oss(get: ConfigFields) -> dict[str, Any]:
    spec = read_llama(get)
    bias = get.flag("attention_bias", default=True)
    return spec | {
        "head_dim": (head_dim := get.integer("head_dim", default=64)),
        # One cosine and one sine for both halves of a head.
        "rotated_dim": head_dim // 2,
        "has_qkv_bias": bias,
        "has_out_bias": bias,
        "has_mlp_bias": False,
        "has_sinks": True,
        # Whatever the file says: a gate and an up projection that are clamped.
        "activation": "clamped_swiglu",
        "num_experts": get.integer("num_local_experts", "num_experts", default=128),
        "experts_per_token": get.integer("num_experts_per_tok", default=4),
        "expert_ffn": spec["ffn"],
        "has_expert_bias": True,
    }


def _deepseek_v2(get: ConfigFields) -> dict[str, Any]:
    """Return a model with latent attention: queries, keys and values are made from compressed vectors."""
    layers, heads = get.layers("num_hidden_layers", default=32), get.integer("num_attention_heads", default=32)
    bias, rotated = get.flag("attention_bias", default=False), get.integer("qk_rope_head_dim", default=64)
    width = get.integer("moe_intermediate_size", default=1407)
    return {
        "num_layers": layers,
        "hidden": get.integer("hidden_size", default=4096),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": get.integer("qk_nope_head_dim", default=128) + rotated,
        "value_dim": get.integer("v_head_dim", default=128),
        "rotated_dim": rotated,
        # Null means that queries are made at once.
        "query_rank": get.integer("q_lora_rank", default=0),
        "kv_rank": get.integer("kv_lora_rank", default=512),
        "ffn": get.integer("intermediate_size", default=11008),
        "vocabulary": get.integer("vocab_size", default=102400),
        "max_positions": get.integer("max_position_embeddings", default=2048),
        "gated": True,
        "has_fused_qkv": False,
        "activation": get.text("hidden_act", default="silu"),
        "tied": get.flag("tie_word_embeddings", default=False),
        "has_qkv_bias": bias,
        "has_out_bias": bias,
        "has_mlp_bias": get.flag("mlp_bias", default=False),
        "norm": "rms",
        "has_norm_bias": False,
        "attention_dropout": get.number("attention_dropout", default=0.0),
        "num_experts": get.integer("n_routed_experts", "num_experts", default=64),
        "experts_per_token": get.integer("num_experts_per_tok"),
        "expert_ffn": width,
        "shared_ffn": width * get.integer("n_shared_experts", default=2),
        "num_dense_layers": min(get.integer("first_k_dense_replace", default=0), layers),
    }


def _deepseek_v3(get: ConfigFields) -> dict[str, Any]:
    defaults = {"n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3}
    return _deepseek_v2(get.with_defaults(defaults)) | {"has_mlp_bias": False}


def _gpt_neox(get: ConfigFields) -> dict[str, Any]:
    bias = get.flag("attention_bias", default=True)
    return read_llama(get) | {
        "gated": False,
        "has_fused_qkv": True,
        "activation": get.text("hidden_act", default="gelu"),
        "has_qkv_bias": bias,
        "has_out_bias": bias,
        "has_mlp_bias": True,
        "norm": "layer",
        "has_norm_bias": True,
        "is_parallel": get.flag("use_parallel_residual", default=True),
        "hidden_dropout": get.number("hidden_dropout", default=0.0),
    }


def _phi(get: ConfigFields) -> dict[str, Any]:
    spec = _gpt_neox(get) | {"num_head_biases": 1, "norms_per_layer": 1, "is_parallel": True, "has_fused_qkv": False}
    return spec | {
        "has_qkv_bias": True,
        "has_out_bias": True,
        "activation": get.text("hidden_act", default="gelu_new"),
        "hidden_dropout": get.number("resid_pdrop", default=0.0),
        "embedding_dropout": get.number("embd_pdrop", default=0.0),
    }


def _starcoder2(get: ConfigFields) -> dict[str, Any]:
    bias = get.flag("use_bias", default=True)
    return read_llama(get) | {
        "gated": False,
        "activation": get.text("hidden_act", default="gelu_pytorch_tanh"),
        "tied": get.flag("tie_word_embeddings", default=True),
        "has_qkv_bias": bias,
        "has_out_bias": bias,
        "has_mlp_bias": bias,
        "norm": "layer",
        "has_norm_bias": True,
        "hidden_dropout": get.number("residual_dropout", default=0.0),
        "embedding_dropout": get.number("embedding_dropout", default=0.0),
    }


def _stablelm(get: ConfigFields) -> dict[str, Any]:
    if get.flag("qk_layernorm", default=False):
        raise MemtraceError("config: StableLM with qk_layernorm is not known")
    parallel = get.flag("use_parallel_residual", default=False)
    return read_without_bias(get) | {
        "has_qkv_bias": get.flag("use_qkv_bias", default=False),
        "norm": "layer",
        "has_norm_bias": True,
        "norms_per_layer": 1 if parallel else 2,
        "is_parallel": parallel,
        "hidden_dropout": get.number("hidden_dropout", default=0.0),
    }


def _bert(get: ConfigFields) -> dict[str, Any]:
    hidden, heads = get.integer("hidden_size", default=768), get.integer("num_attention_heads", default=12)
    positions = get.integer("max_position_embeddings", default=512)
    is_tied = get.flag("tie_word_embeddings", default=True)
    dropout = get.number("hidden_dropout_prob", default=0.1)
    return {
        "num_layers": get.layers("num_hidden_layers", default=12),
        "hidden": hidden,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": head_width(hidden, heads),
        "ffn": get.integer("intermediate_size", default=3072),
        "vocabulary": get.integer("vocab_size", default=30522),
        "max_positions": positions,
        "learned_positions": positions,
        "token_types": get.integer("type_vocab_size", default=2),
        "activation": get.text("hidden_act", default="gelu"),
        "has_fused_qkv": False,
        "tied": is_tied,
        "num_head_biases": 1 if is_tied else 2,
        "has_head_transform": True,
        "has_final_norm": False,
        "has_embedding_norm": True,
        "embedding_dropout": dropout,
        "attention_dropout": get.number("attention_probs_dropout_prob", default=0.1),
        "hidden_dropout": dropout,
    }


def _opt(get: ConfigFields) -> dict[str, Any]:
    hidden, heads = get.integer("hidden_size", default=768), get.integer("num_attention_heads", default=12)
    positions, bias = get.integer("max_position_embeddings", default=2048), get.flag("enable_bias", default=True)
    is_normed = get.flag("do_layer_norm_before", default=True)
    affine, dropout = get.flag("layer_norm_elementwise_affine", default=True), get.number("dropout", default=0.1)
    return {
        "num_layers": get.layers("num_hidden_layers", default=12),
        "hidden": hidden,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": head_width(hidden, heads),
        "ffn": get.integer("ffn_dim", default=3072),
        "vocabulary": get.integer("vocab_size", default=50272),
        "embedding_dim": get.integer("word_embed_proj_dim", default=hidden),
        "max_positions": positions,
        # Two rows more than positions: OPT counts from 2 on.
        "learned_positions": positions + 2,
        "activation": get.text("activation_function", default="relu"),
        "tied": get.flag("tie_word_embeddings", default=True),
        "has_fused_qkv": False,
        "has_qkv_bias": bias,
        "has_out_bias": bias,
        "has_mlp_bias": bias,
        "has_norm_weight": affine,
        "has_norm_bias": affine,
        "has_final_norm": is_normed and not get.flag("_remove_final_layer_norm", default=False),
        "attention_dropout": get.number("attention_dropout", default=0.0),
        "hidden_dropout": dropout,
    }


def _falcon(get: ConfigFields) -> dict[str, Any]:
    hidden, heads = get.integer("hidden_size", "n_embed"), get.integer("num_attention_heads", "n_head")
    is_new = get.flag("new_decoder_architecture", default=False)
    multi_query = get.flag("multi_query", default=True)
    kv_heads = get.integer("num_kv_heads", "n_head_kv", default=heads) if is_new else 1 if multi_query else heads
    bias, is_parallel = get.flag("bias", default=False), get.flag("parallel_attn", default=True)
    num_norms = get.integer("num_ln_in_parallel_attn", default=2 if is_new else 1)
    has_two = (is_new and num_norms == 2) or not (is_new or is_parallel)
    return {
        "num_layers": get.layers("num_hidden_layers", "n_layer"),
        "hidden": hidden,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_width(hidden, heads),
        "ffn": get.integer("ffn_hidden_size", default=4 * hidden),
        "vocabulary": get.integer("vocab_size"),
        "max_positions": get.integer("max_position_embeddings", default=2048),
        "activation": get.text("activation", default="gelu"),
        "tied": get.flag("tie_word_embeddings", default=True),
        "has_qkv_bias": bias,
        "has_out_bias": bias,
        "has_mlp_bias": bias,
        "norms_per_layer": 2 if has_two else 1,
        "is_parallel": is_parallel or is_new,
        "attention_dropout": get.number("attention_dropout", default=0.0),
        "hidden_dropout": get.number("hidden_dropout", default=0.0),
    }


def _bloom(get: ConfigFields) -> dict[str, Any]:
    hidden, heads = get.integer("hidden_size", "n_embed"), get.integer("n_head", "num_attention_heads")
    return {
        "num_layers": get.layers("n_layer", "num_hidden_layers"),
        "hidden": hidden,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": head_width(hidden, heads),
        "ffn": 4 * hidden,
        "vocabulary": get.integer("vocab_size", default=250880),
        "activation": "bloom_gelu",
        "tied": get.flag("tie_word_embeddings", default=True),
        "has_embedding_norm": True,
        "attention_dropout": get.number("attention_dropout", default=0.0),
        "hidden_dropout": get.number("hidden_dropout", default=0.0),
    }


READERS: dict[str, Callable[[ConfigFields], dict[str, Any]]] = {
    **LLAMA_LIKE,
    "bart": read_bart,
    "bert": _bert,
    "bloom": _bloom,
    "camembert": _bert,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "falcon": _falcon,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt_bigcode,
    "gpt_neo": _gpt_neo,
    "gpt_neox": _gpt_neox,
    "gpt_oss": _gpt_oss,
    "gptj": _gptj,
    "m2m_100": read_m2m,
    "mbart": read_mbart,
    "mixtral": _mixtral,
    "mt5": read_mt5,
    "opt": _opt,
    "phi": _phi,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "roberta": _bert,
    "stablelm": _stablelm,
    "starcoder2": _starcoder2,
    "t5": read_t5,
    "umt5": read_umt5,
    "xlm-roberta": _bert,
}
"""By `model_type`."""

_TWO_STACKS = (
    "it is an encoder and a decoder, of which the estimate describes the T5 family, BART, mBART and M2M100 alone"
)
_OWN_ATTENTION = "its attention keeps scores of positions that the estimate does not describe"
_IMAGES = "it reads images, and the estimate counts tokens of a text"
_SPEECH = "it reads sound, and the estimate counts tokens of a text"
_NO_ATTENTION = "it has layers without attention, and the estimate describes transformers"
UNREAD = {
    "albert": "its layers share their weights",
    "clip": _IMAGES,
    "deberta": _OWN_ATTENTION,
    "deberta-v2": _OWN_ATTENTION,
    "distilbert": "its layers are not those of BERT",
    "electra": "it trains a generator beside its discriminator",
    "led": _TWO_STACKS,
    "longt5": "its encoder attends to a window and to sums of blocks",
    "mamba": _NO_ATTENTION,
    "mamba2": _NO_ATTENTION,
    "marian": _TWO_STACKS,
    "modernbert": "it packs sequences and attends to a window in most layers",
    "pegasus": _TWO_STACKS,
    "qwen3_next": _NO_ATTENTION,
    "swin": _IMAGES,
    "switch_transformers": "it is T5 with experts",
    "vit": _IMAGES,
    "wav2vec2": _SPEECH,
    "whisper": _TWO_STACKS,
}
"""Why a well-known architecture is not read, by `model_type`."""
