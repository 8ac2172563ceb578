"""Low-rank adapters: what is trained, what a frozen model keeps for backward, what a quantized base takes."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memtrace.errors import MemtraceError
from memtrace.forecast.estimation.estimate import estimate
from memtrace.forecast.memory.layout import Layout, Run
from memtrace.forecast.memory.sharding import rank_model
from memtrace.forecast.model.adapters import BASES, TARGETS, Adapter, trained_tensors
from memtrace.forecast.model.config import read_config
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.presets import preset
from tests.forecast.test_activations import BATCH, DROPOUTS, SEQUENCE, estimated
from tests.forecast.test_parameters import random_config

RANK = 4
PREFIXES = {"attention": ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "query_key_value", "dense", "qkv_proj")}
PREFIXES |= {"all": (*PREFIXES["attention"], "gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2")}
PREFIXES["all"] += ("dense_h_to_4h", "dense_4h_to_h", "c_fc", "c_proj")
PREFIXES |= {"qv": ("q_proj", "v_proj", "query_key_value", "qkv_proj")}


def adapted_model(kind: str, settings: dict[str, Any], attention: str, precision: str, targets: str) -> Any:
    """Return a frozen model whose matrices have adapters, which work as those of PEFT (`lora.Linear.forward`)."""
    import torch

    from tests.forecast.saved_tensors import language_model

    class Adapted(torch.nn.Module):
        def __init__(self, base: torch.nn.Linear, dtype: torch.dtype) -> None:
            super().__init__()
            self.base = base
            self.a = torch.nn.Linear(base.in_features, RANK, bias=False, dtype=dtype)
            self.b = torch.nn.Linear(RANK, base.out_features, bias=False, dtype=dtype)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result = self.base(x)
            return (result + self.b(self.a(x.to(self.a.weight.dtype))) * 2.0).to(result.dtype)  # type: ignore[no-any-return]

    model = language_model(kind, settings, attention)
    model = model.to(torch.bfloat16) if precision.startswith("bf16") else model
    model.requires_grad_(False)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if isinstance(module, torch.nn.Linear) and last in PREFIXES[targets]:
            setattr(model.get_submodule(parent), last, Adapted(module, dtype))
    model.enable_input_require_grads()
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("precision", ["fp32", "autocast", "bf16", "bf16-mixed"])
@pytest.mark.parametrize(
    ("kind", "attention"),
    [("llama", "sdpa"), ("llama", "eager"), ("qwen3", "sdpa"), ("opt", "sdpa"), ("gpt_neox", "sdpa"), ("phi3", "sdpa")],
)
def test_terms_are_what_autograd_keeps_of_an_adapted_model(
    kind: str, attention: str, precision: str, targets: str
) -> None:
    torch = pytest.importorskip("torch")
    from tests.forecast.saved_tensors import saved_bytes

    settings = random_config(kind, random.Random(f"{kind}1")) | dict.fromkeys(DROPOUTS, 0.0)
    settings |= {"num_hidden_layers": 3}
    model = adapted_model(kind, settings, attention, precision, targets)
    tokens = torch.randint(1, settings["vocab_size"], (BATCH, SEQUENCE))

    def forward() -> tuple[Any, Any]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast"):
            output = model(tokens, labels=tokens)
        return output.loss, output.logits

    spec, adapter = read_config(model.config.to_dict()), Adapter(rank=RANK, targets=targets)
    run = Run(micro_batch=BATCH, sequence=SEQUENCE, precision=PRECISIONS[precision], backend="cpu", adapter=adapter)
    run = replace(run, attention="explicit" if attention == "eager" else "sdpa")
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert sum(one.copies * one.numel for one in trained_tensors(spec, adapter)) == trained
    kept = saved_bytes(model, forward)
    error = 100 * (estimated(spec, run) - kept) / kept
    assert abs(error) <= 2.0, f"{error:+.1f} %"


@pytest.mark.parametrize(
    ("name", "rank", "targets", "published"),
    [
        ("llama-3.1-8b", 16, "all", 41_943_040),
        ("llama-2-7b", 8, "qv", 4_194_304),
        ("llama-2-7b", 64, "all", 159_907_840),
    ],
)
def test_trained_parameters_are_those_that_peft_prints(name: str, rank: int, targets: str, published: int) -> None:
    pairs = trained_tensors(preset(name), Adapter(rank=rank, targets=targets))
    assert sum(one.copies * one.numel for one in pairs) == published


@pytest.mark.parametrize("base", BASES)
def test_a_rank_holds_the_base_and_float32_adapters(base: str) -> None:
    spec, adapter = preset("llama-2-7b"), Adapter(rank=8, targets="qv", base=base)
    model = rank_model(spec, Run(adapter=adapter), Layout(dp=2), is_last=False)
    trained, hidden, ffn, layers = 4_194_304, 4096, 11008, 32
    in_matrices = layers * (4 * hidden * hidden + 3 * hidden * ffn)
    rows = layers * (5 * hidden + 2 * ffn)
    of_matrices = {
        "plain": 2 * in_matrices,
        "int8": in_matrices + 4 * rows,
        "nf4": in_matrices // 2 + in_matrices // 16,
    }
    others = 2 * 32000 * hidden + (2 * layers + 1) * hidden
    assert model.weights == of_matrices[base] + 2 * others + 4 * trained
    assert (model.gradients, model.states) == (4 * trained, 8 * trained)


def test_a_quantized_base_needs_less_and_a_trained_model_more() -> None:
    peaks = [
        estimate(preset("llama-2-7b"), Run(recompute=2, adapter=one), Layout()).peak.peak_bytes
        for one in (*(Adapter(rank=8, base=base) for base in reversed(BASES)), None)
    ]
    assert peaks == sorted(set(peaks))


@pytest.mark.parametrize(
    ("model", "precision", "layout", "message"),
    [
        ("mixtral-8x7b", "bf16", Layout(), "mixture of experts"),
        ("gpt2", "fp8-mixed", Layout(), "not estimated in fp8-mixed"),
        ("gpt2", "bf16", Layout(dp=2, zero=3), "DistributedDataParallel"),
        ("gpt2", "bf16", Layout(tp=2), "DistributedDataParallel"),
    ],
)
def test_adapters_are_refused_where_no_formula_holds(model: str, precision: str, layout: Layout, message: str) -> None:
    run = Run(precision=PRECISIONS[precision], adapter=Adapter(rank=8))
    with pytest.raises(MemtraceError, match=message):
        estimate(preset(model), run, layout)


def _shape(hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
    }


MEASURED = {
    "lora-Qwen2.5-1.5B-Instruct-sdpa-b2-s1024": ("qwen2", _shape(1536, 28, 12, 2, 8960, 151936), "sdpa", 2, 1024),
    "lora-SmolLM2-1.7B-eager-b4-s1024": ("llama", _shape(2048, 24, 32, 32, 8192, 49152), "explicit", 4, 1024),
    "lora-SmolLM2-135M-eager-b2-s512": ("llama", _shape(576, 30, 9, 3, 1536, 49152), "explicit", 2, 512),
    "lora-SmolLM2-360M-eager-b1-s4096": ("llama", _shape(960, 32, 15, 5, 2560, 49152), "explicit", 1, 4096),
    "lora-SmolLM2-135M-sdpa-b2-s512": ("llama", _shape(576, 30, 9, 3, 1536, 49152), "sdpa", 2, 512),
}


@pytest.mark.parametrize("row", MEASURED)
def test_peaks_are_those_that_a_gpu_had(row: str, shared_data: Path) -> None:
    with (shared_data / "published" / "gpu_peaks.csv").open() as file:
        allocated = next(int(one["true_allocated"]) for one in csv.DictReader(file) if one["id"] == row)
    kind, shape, attention, batch, sequence = MEASURED[row]
    # fitcheck-llm's programs: 16-bit base, float32 adapters of rank 32 on attention, checkpointed layers, no cache.
    run = Run(micro_batch=batch, sequence=sequence, attention=attention, recompute=2, caches_kv=False)
    run = replace(run, adapter=Adapter(rank=32, targets="attention"))
    result = estimate(read_config({"model_type": kind, **shape}), run, Layout())
    # What the allocator counts is tensors and the workspace of cuBLAS, not the context.
    assert result.peak.peak_bytes - run.context.predicted_bytes == pytest.approx(allocated, rel=0.015)
