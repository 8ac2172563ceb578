"""Parameter counts against `transformers` itself: random shapes, built on the meta device, to the parameter."""

from __future__ import annotations

import random
from typing import Any

import pytest

from memtrace.errors import MemtraceError
from memtrace.forecast.model.config import READERS, read_config
from memtrace.forecast.model.from_parameter_count import spec_of_size
from memtrace.forecast.model.parameter_tensors import parameter_tensors
from memtrace.forecast.model.parameters import (
    active_parameters,
    count_parameters,
    num_parameter_tensors,
    num_parameters,
)
from memtrace.forecast.model.presets import PRESETS, preset
from memtrace.forecast.model.spec import ModelSpec

NUM_RANDOM_CONFIGS = 3
MASKED = {"bert", "camembert", "roberta", "xlm-roberta"}
WITH_WIDE_HEADS = {"ernie4_5", "glm", "glm4", "seed_oss"}
"""Architectures whose heads together may be wider than the model."""
ENCODER_DECODERS = {"bart", "m2m_100", "mbart", "mt5", "t5", "umt5"}
"""Of tests of their own: test_encoder_decoder.py."""


def random_config(kind: str, draw: random.Random) -> dict[str, Any]:
    """Return a small configuration of an architecture, with the choices that change its parameters drawn at random."""
    heads, head_dim = draw.choice([2, 4, 6]), draw.choice([8, 16, 24])
    kv_heads = draw.choice([one for one in range(1, heads + 1) if heads % one == 0])
    hidden, layers, vocabulary, ffn = heads * head_dim, draw.randint(1, 5), draw.randint(50, 900), draw.randint(20, 300)
    flip = lambda: draw.random() < 0.5  # noqa: E731
    if kind in {"gpt2", "gpt_bigcode", "gptj"}:
        config = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "n_positions": draw.randint(16, 90)}
        config |= {"n_inner": draw.choice([None, ffn]), "rotary_dim": 8}
        return config | {"vocab_size": vocabulary, "tie_word_embeddings": flip(), "multi_query": flip()}
    if kind == "gpt_neo":
        config = {"hidden_size": hidden, "num_layers": layers, "num_heads": heads, "vocab_size": vocabulary}
        config |= {"attention_types": [[["global"], layers]], "intermediate_size": draw.choice([None, ffn])}
        return config | {"tie_word_embeddings": flip(), "max_position_embeddings": draw.randint(16, 90)}
    config = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "vocab_size": vocabulary,
        "tie_word_embeddings": flip(),
        "max_position_embeddings": draw.randint(16, 90),
        "pad_token_id": 0,
    }
    if kind in MASKED:
        return config | {"type_vocab_size": draw.randint(1, 4)}
    if kind == "opt":
        config |= {"ffn_dim": ffn, "enable_bias": flip(), "layer_norm_elementwise_affine": flip()}
        return config | {"do_layer_norm_before": flip(), "word_embed_proj_dim": draw.choice([hidden, 12])}
    if kind == "bloom":
        return {name: config[name] for name in ("hidden_size", "vocab_size", "tie_word_embeddings")} | {
            "n_layer": layers,
            "n_head": heads,
        }
    if kind == "falcon":
        choices = {"new_decoder_architecture": flip(), "multi_query": flip(), "parallel_attn": flip(), "bias": flip()}
        return config | choices | {"num_kv_heads": kv_heads, "ffn_hidden_size": ffn}
    config["num_key_value_heads"] = kv_heads
    if kind in {"qwen3", "gemma", "gemma2", "gemma3_text", "llama", "mistral"}:
        config["head_dim"] = draw.choice([8, 32])
    if kind in {"llama", "granite"}:
        config["mlp_bias"] = flip()
    if kind in {"llama", "granite", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt_neox", "olmo2"}:
        config["attention_bias"] = flip()
    if kind in WITH_WIDE_HEADS | {"helium"}:
        config["head_dim"] = draw.choice([8, 32]) if kind in WITH_WIDE_HEADS else head_dim
        config |= {"attention_bias": flip(), "use_bias": flip(), "attention_out_bias": flip()}
    if kind in {"cohere", "cohere2", "olmo", "olmo3", "smollm3"}:
        config["attention_bias"] = flip()
    if kind in {"helium", "seed_oss", "smollm3"}:
        config["mlp_bias"] = flip()
    if kind == "gpt_neox":
        config["num_key_value_heads"] = heads
    if kind == "stablelm":
        config |= {"use_qkv_bias": flip(), "use_parallel_residual": flip()}
    if kind == "starcoder2":
        config["use_bias"] = flip()
    if kind == "mixtral":
        config |= {"num_local_experts": draw.randint(2, 6), "num_experts_per_tok": 2}
    if kind == "gpt_oss":
        config |= {"head_dim": draw.choice([8, 32]), "num_local_experts": draw.randint(2, 6)}
        # Grouped products want rows of whole 16 bytes.
        config |= {"num_experts_per_tok": 2, "attention_bias": flip(), "intermediate_size": 8 * draw.randint(3, 30)}
    if kind in {"deepseek_v2", "deepseek_v3"}:
        config |= {"num_key_value_heads": heads, "q_lora_rank": draw.choice([None, 12]), "kv_lora_rank": 16}
        config |= {"qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": draw.choice([8, 10])}
        config |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 2}
        config |= {"topk_group": 1, "n_shared_experts": draw.randint(1, 3), "attention_bias": flip()}
        config |= {"first_k_dense_replace": draw.randint(0, layers), "mlp_bias": flip()}
    if kind in {"qwen2_moe", "qwen3_moe"}:
        config |= {"num_experts": draw.randint(2, 6), "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        config |= {"decoder_sparse_step": draw.choice([1, 2]), "shared_expert_intermediate_size": 40}
        config |= {"mlp_only_layers": draw.choice([[], [0]])}
    return config


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(set(READERS) - ENCODER_DECODERS))
def test_parameters_equal_those_that_transformers_builds(kind: str) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    for seed in range(NUM_RANDOM_CONFIGS):
        settings = random_config(kind, random.Random(f"{kind} {seed}"))
        config = transformers.CONFIG_MAPPING[kind](**settings)
        loader = transformers.AutoModelForMaskedLM if kind in MASKED else transformers.AutoModelForCausalLM
        with torch.device("meta"):
            model = loader.from_config(config)
        expected, spec = sorted(parameter.numel() for parameter in model.parameters()), read_config(config.to_dict())
        tensors = sorted(one.numel for one in parameter_tensors(spec) for _ in range(one.copies))
        assert num_parameters(spec) == sum(expected), (kind, settings)
        assert tensors == expected, (kind, settings)
        assert num_parameter_tensors(spec) == len(expected)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-xl", 1_557_611_200),
        ("llama-2-7b", 6_738_415_616),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
        ("mistral-7b", 7_241_732_096),
        ("mixtral-8x7b", 46_702_792_704),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("gemma-2-9b", 9_241_705_984),
        ("gemma-2b", 2_506_172_416),
        ("gemma-7b", 8_537_680_896),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-3.3-70b", 70_553_706_496),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-1.7b", 1_720_574_976),
        ("qwen3-4b", 4_022_468_096),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-14b", 14_768_307_200),
        ("qwen3-32b", 32_762_123_264),
        ("qwen3-30b-a3b", 30_532_122_624),
        ("gemma-3-270m", 268_098_176),
        ("gemma-3-1b", 999_885_952),
        ("deepseek-v2", 235_741_434_880),
        ("deepseek-v2-lite", 15_706_484_224),
        ("deepseek-v3", 671_026_404_352),
        ("gpt-oss-20b", 20_914_757_184),
        ("gpt-oss-120b", 116_829_156_672),
        ("gpt-neo-125m", 125_198_592),
        ("gpt-neo-1.3b", 1_315_575_808),
        ("gpt-neo-2.7b", 2_651_307_520),
        ("gpt-neox-20b", 20_554_567_680),
        ("phi-2", 2_779_683_840),
        ("bert-base", 109_514_298),
    ],
)
def test_preset_has_the_published_number_of_parameters(name: str, published: int) -> None:
    assert num_parameters(preset(name)) == published


@pytest.mark.parametrize("name", PRESETS)
def test_parts_of_a_preset_add_up(name: str) -> None:
    spec = preset(name)
    parts = count_parameters(spec)
    assert parts.total == parts.embedding.total + parts.layers_total + parts.head.total
    assert 0 < active_parameters(spec) <= parts.total
    assert (active_parameters(spec) < parts.total) == bool(spec.num_experts)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pegasus-large", "an encoder and a decoder"),
        ("whisper-small", "an encoder and a decoder"),
        ("mamba-130m", "without attention"),
    ],
)
def test_preset_of_an_architecture_that_is_not_read_says_why(name: str, reason: str) -> None:
    with pytest.raises(MemtraceError, match=reason) as raised:
        preset(name)
    assert "memtrace predict" in (raised.value.hint or "")


def test_active_parameters_of_mixtral_are_those_of_two_experts() -> None:
    assert active_parameters(preset("mixtral-8x7b")) == pytest.approx(12.9e9, rel=0.005)


@pytest.mark.parametrize("number", [10**6, 124 * 10**6, 7 * 10**9, 70 * 10**9, 405 * 10**9])
def test_model_of_a_size_has_exactly_that_size(number: int) -> None:
    spec = spec_of_size(number)
    assert num_parameters(spec) == number
    # The shape alone is near it: the rest is a correction.
    assert abs(spec.extra_parameters) < 0.2 * number


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "not a JSON object"),
        ({"model_type": "no such"}, "'no such' is not known"),
        ({"model_type": "vit"}, "vit is not read: it reads images"),
        ({"model_type": "modernbert"}, "modernbert is not read"),
        ({"model_type": "deberta-v2"}, "deberta-v2 is not read"),
        ({"model_type": "cohere", "use_qk_norm": True}, "use_qk_norm is not read"),
        ({"model_type": "marian"}, "marian is not read: it is an encoder and a decoder"),
        ({"model_type": ["llama"]}, "is not known"),
        ({"model_type": "llama"}, "no hidden_size"),
        ({"model_type": "gpt2", "n_embd": 10, "n_head": 3}, "cannot be divided among 3 heads"),
        ({"model_type": "gpt2", "n_embd": "10"}, "n_embd must be a whole number"),
        ({"model_type": "gpt2", "n_layer": -1}, "n_layer must be a whole number"),
        ({"model_type": "gpt2", "n_layer": 2**40}, "n_layer must be at most"),
        ({"model_type": "gpt2", "vocab_size": 2**40}, "must be at least 1 and below"),
        ({"model_type": "gpt2", "attn_pdrop": "x"}, "attn_pdrop must be a number"),
        ({"model_type": "gpt2", "tie_word_embeddings": 1}, "must be true or false"),
    ],
)
def test_impossible_configuration_is_refused_in_words(config: Any, message: str) -> None:
    with pytest.raises(MemtraceError) as raised:
        read_config(config)
    assert message in raised.value.message


def test_an_architecture_that_is_not_known_is_refused_with_what_to_try() -> None:
    for kind in ("no such", "gemma4_text", "rwkv", 7, None):
        with pytest.raises(MemtraceError, match="is not known") as raised:
            read_config({"model_type": kind, "hidden_size": 64})
        assert (raised.value.hint or "").startswith("memtrace predict")


def test_heads_that_cannot_share_are_refused() -> None:
    with pytest.raises(MemtraceError, match="cannot share"):
        ModelSpec(name="x", num_layers=1, hidden=8, num_heads=3, num_kv_heads=2, head_dim=4, ffn=8, vocabulary=9)


def test_language_model_inside_a_larger_configuration_is_read() -> None:
    inner = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    inner |= {"intermediate_size": 96, "vocab_size": 100}
    assert read_config({"model_type": "some_vision", "text_config": inner}).architecture == "llama"
