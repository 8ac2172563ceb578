"""Models of an encoder and a decoder: parameters and kept activations against `transformers`, and what is refused."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from memtrace.errors import MemtraceError
from memtrace.forecast.estimation.estimate import estimate
from memtrace.forecast.evaluation.evaluate import evaluate_layouts
from memtrace.forecast.evaluation.layouts import GivenLayout
from memtrace.forecast.gpus import gpu_named
from memtrace.forecast.memory.activations import activation_terms, total
from memtrace.forecast.memory.kept_by_two_stacks import encoder_output, encoder_run
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.model.adapters import Adapter
from memtrace.forecast.model.config import read_config
from memtrace.forecast.model.parameter_tensors import parameter_tensors
from memtrace.forecast.model.parameters import autocast_copies, count_parameters, num_parameters
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.presets import preset
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.planning.plan import Question, make_plan

BATCH, SOURCE, TARGET = 2, 24, 16
T5_KINDS = ("t5", "mt5", "umt5")
LEARNED_POSITIONS = ("bart", "mbart")
KINDS = (*T5_KINDS, *LEARNED_POSITIONS, "m2m_100")

DROPOUTS = ("dropout_rate", "dropout", "attention_dropout", "activation_dropout")


def random_config(kind: str, draw: random.Random) -> dict[str, Any]:
    """Return a small configuration with what changes the shape drawn at random."""
    if kind not in T5_KINDS:
        width = draw.choice([12, 24])
        stacks = {
            f"{name}_{field}": draw.choice(choices)
            for name in ("encoder", "decoder")
            for field, choices in (("layers", [1, 3]), ("ffn_dim", [40, 90]), ("attention_heads", [2, 3]))
        }
        more = {"vocab_size": draw.randint(60, 300), "activation_function": draw.choice(["gelu", "relu"])}
        drops = {"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}
        return {"d_model": width, "max_position_embeddings": draw.randint(24, 60)} | stacks | more | drops
    return {
        "d_model": 8 * draw.randint(2, 5),
        "d_kv": draw.choice([4, 5, 16]),
        "d_ff": draw.randint(20, 90),
        "num_layers": draw.randint(1, 3),
        "num_decoder_layers": draw.choice([None, 1, 4]),
        "num_heads": draw.choice([2, 3]),
        "vocab_size": draw.randint(60, 300),
        "feed_forward_proj": draw.choice(["relu", "gelu", "gated-gelu", "gated-silu"]),
        "relative_attention_num_buckets": draw.choice([8, 32]),
        "decoder_start_token_id": 0,
    }


def estimated(spec: ModelSpec, run: Run) -> int:
    """Return what both stacks keep, with the encoder's output, which the program holds."""
    assert spec.encoder is not None
    found = autocast_copies(spec, run.precision).total + encoder_output(spec, run)
    for stack, seen in ((spec, run), (spec.encoder, encoder_run(run))):
        terms = activation_terms(stack, seen, Layout())
        found += stack.num_layers * total(terms.dense_layer) + total(terms.embedding) + total(terms.head)
    return int(found)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_equal_those_that_transformers_builds(kind: str) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    for seed in range(4):
        config = transformers.CONFIG_MAPPING[kind](**random_config(kind, random.Random(f"{kind} {seed}")))
        with torch.device("meta"):
            model = transformers.AutoModelForSeq2SeqLM.from_config(config)
        expected, spec = sorted(one.numel() for one in model.parameters()), read_config(config.to_dict())
        assert sorted(one.numel for one in parameter_tensors(spec) for _ in range(one.copies)) == expected
        assert num_parameters(spec) == sum(expected)
        parts = count_parameters(spec)
        assert parts.total == parts.embedding.total + parts.layers_total + parts.head.total


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["fp32", "autocast", "bf16"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", KINDS)
def test_terms_are_what_autograd_keeps(kind: str, attention: str, precision: str, dropout: float, cache: bool) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    from tests.forecast.saved_tensors import saved_bytes

    draw = random.Random(f"{kind} {attention} {precision} {dropout} {cache}")
    settings = random_config(kind, draw) | dict.fromkeys(DROPOUTS, dropout) | {"use_cache": cache}
    config = transformers.CONFIG_MAPPING[kind](**settings)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config, attn_implementation=attention).train()
    model = model.to(torch.bfloat16) if precision == "bf16" else model
    source, target = (torch.randint(1, settings["vocab_size"], (BATCH, length)) for length in (SOURCE, TARGET))

    def forward() -> tuple[Any, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast"):
            output = model(input_ids=source, labels=target)
        caches = output.past_key_values
        layers = (*caches.self_attention_cache.layers, *caches.cross_attention_cache.layers) if caches else ()
        cached = [part for layer in layers for part in (layer.keys, layer.values)]
        return output.loss, output.logits, output.encoder_last_hidden_state, *cached

    # Numbers of tokens, once more for the labels, and of positions are inputs; the loss keeps its count in the type of
    # the logits.
    inputs = 8 * BATCH * (SOURCE + 2 * TARGET) + (2 if precision == "bf16" else 4)
    inputs += 8 * (BATCH * SOURCE + TARGET) if kind in LEARNED_POSITIONS else 0
    run = Run(
        micro_batch=BATCH,
        sequence=TARGET,
        source_sequence=SOURCE,
        precision=PRECISIONS[precision],
        attention="explicit" if attention == "eager" else "sdpa",
        backend="cpu",
        caches_kv=cache,
    )
    assert estimated(read_config(model.config.to_dict()), run) + inputs == saved_bytes(model, forward)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("t5-small", 60_506_624),
        ("t5-base", 222_903_552),
        ("t5-large", 737_668_096),
        ("t5-3b", 2_851_598_336),
        ("t5-11b", 11_307_321_344),
        ("flan-t5-small", 76_961_152),
        ("flan-t5-base", 247_577_856),
        ("flan-t5-large", 783_150_080),
        ("flan-t5-xl", 2_849_757_184),
        ("flan-t5-xxl", 11_135_332_352),
        ("mt5-small", 300_176_768),
        ("mt5-base", 582_401_280),
        ("mt5-large", 1_229_581_312),
        ("mt5-xl", 3_742_619_648),
        ("mt5-xxl", 12_921_057_280),
        ("bart-base", 139_420_416),
        ("bart-large", 406_291_456),
        ("mbart-large", 610_851_840),
    ],
)
def test_preset_has_the_published_number_of_parameters(name: str, published: int) -> None:
    assert num_parameters(preset(name)) == published


def test_a_longer_target_is_not_a_longer_source() -> None:
    run = Run(micro_batch=4, sequence=128, source_sequence=512, attention="sdpa")
    spec = preset("t5-base")
    peak = estimate(spec, run, Layout()).peak.peak_bytes
    for other in (replace(run, sequence=256), replace(run, source_sequence=1024)):
        assert estimate(spec, other, Layout()).peak.peak_bytes > peak
    turned = replace(run, sequence=run.source, source_sequence=run.sequence)
    assert estimate(spec, turned, Layout()).settings["target_sequence"] == 512
    assert estimate(spec, turned, Layout()).peak.peak_bytes != peak


def test_bart_takes_flash_attention_and_t5_does_not() -> None:
    run = Run(micro_batch=64, sequence=128, source_sequence=512)
    flash, written = (
        estimate(preset("bart-large"), replace(run, attention=name), Layout()) for name in ("flash", "explicit")
    )
    assert flash.peak.peak_bytes < written.peak.peak_bytes
    assert not any("T5" in one for one in flash.assumptions)


def test_states_of_both_stacks_are_divided() -> None:
    spec = preset("t5-base")
    one, eight = (estimate(spec, Run(attention="sdpa"), Layout(dp=dp, zero=zero)) for dp, zero in ((1, 0), (8, 1)))
    assert one.state_bytes == 12 * num_parameters(spec)
    assert eight.state_bytes == pytest.approx(one.state_bytes / 8, rel=1e-6)


@pytest.mark.parametrize(
    ("run", "layout", "message"),
    [
        (Run(attention="flash"), Layout(), "adds learned scores"),
        (Run(attention="sdpa"), Layout(tp=2), "tp of an encoder and a decoder"),
        (Run(attention="sdpa"), Layout(pp=2), "pp of an encoder and a decoder"),
        (Run(attention="sdpa"), Layout(cp=2, dp=2), "cp of an encoder and a decoder"),
        (Run(attention="sdpa", adapter=Adapter(rank=4)), Layout(), "adapters of an encoder and a decoder"),
    ],
)
def test_what_the_formulas_do_not_describe_is_refused(run: Run, layout: Layout, message: str) -> None:
    with pytest.raises(MemtraceError, match=message) as raised:
        estimate(preset("t5-small"), run, layout)
    assert raised.value.hint


def test_a_target_sequence_needs_an_encoder() -> None:
    with pytest.raises(MemtraceError, match="has no encoder"):
        estimate(preset("gpt2"), Run(sequence=8, source_sequence=16), Layout())


def test_no_plan_is_made_of_an_encoder_and_a_decoder() -> None:
    gpu = gpu_named("h100-80gb")
    with pytest.raises(MemtraceError, match="an encoder and a decoder"):
        make_plan(preset("t5-small"), Question(gpus=8, gpu=gpu, global_tokens=2**16, sequence=512))
    given = GivenLayout(spec=preset("t5-small"), gpu=gpu, run=Run(attention="sdpa"), layout=Layout(), assumed=())
    with pytest.raises(MemtraceError, match="an encoder and a decoder"):
        evaluate_layouts([given])


@pytest.mark.parametrize("name", ["gated-", "-gelu", "double-gelu", "a-b-c"])
def test_an_impossible_feed_forward_is_refused(name: str) -> None:
    with pytest.raises(MemtraceError, match="feed_forward_proj"):
        read_config({"model_type": "t5", "feed_forward_proj": name})


def test_padding_is_in_the_range_where_a_fused_kernel_keeps_the_scores_of_each_sequence() -> None:
    spec, layout = preset("t5-base"), Layout()
    for attention, batch in (("sdpa", 8), ("sdpa", 32), ("explicit", 8)):
        run = Run(micro_batch=batch, sequence=128, source_sequence=512, attention=attention)
        full, padded = estimate(spec, run, layout), estimate(spec, replace(run, is_padded=True), layout)
        assert full.high_bytes >= padded.peak.peak_bytes
        more = padded.peak.peak_bytes - full.peak.peak_bytes
        assert (more > 0) == (attention == "sdpa")
        assert any("mask of padding" in one for one in full.assumptions) == (more > 0)


def test_a_dropout_that_is_asked_for_stands_only_where_the_architecture_has_one() -> None:
    run = Run(micro_batch=2, sequence=64, attention="sdpa", dropout=0.1)
    inside = {name: "MLP: dropout mask inside" in activation_terms(preset(name), run, Layout()).dense_layer
              for name in ("gpt2", "llama-3-8b", "bert-base", "opt-125m", "t5-base", "bart-base")}  # fmt: skip
    assert [name for name, is_there in inside.items() if is_there] == ["t5-base", "bart-base"]
