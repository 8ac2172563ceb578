"""What the arithmetic of forecasts comes to, whole: models as their configurations say, memory and time of a step.

In: nothing. Out: what stands in the gold file of each. One setting differs from line to line, so that a changed
line tells which term it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.estimation.estimate import estimate
from memtrace.forecast.gpus import GPUS, Gpu
from memtrace.forecast.memory.activations import activation_terms
from memtrace.forecast.memory.layout import FRAMEWORKS, Layout, Run
from memtrace.forecast.memory.optimizers import OPTIMIZERS
from memtrace.forecast.memory.phases import moments
from memtrace.forecast.model.config import READERS, read_config
from memtrace.forecast.model.parameters import active_parameters, num_parameter_tensors, num_parameters
from memtrace.forecast.model.precision import PRECISIONS
from memtrace.forecast.model.presets import PRESETS, preset
from memtrace.forecast.model.spec import ModelSpec
from memtrace.forecast.step_time.speed import speed_of
from memtrace.forecast.step_time.step import step_time

SMALL = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "n_head": 4,
    "num_hidden_layers": 6,
    "n_layer": 6,
    "intermediate_size": 96,
    "vocab_size": 1000,
    "shared_expert_intermediate_size": 40,
    "moe_intermediate_size": 24,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}
"""What some readers cannot do without; the rest of these configurations is left to defaults."""
FULL = SMALL | {
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 24,
    "n_inner": 100,
    "ffn_dim": 104,
    "ffn_hidden_size": 108,
    "n_positions": 501,
    "max_position_embeddings": 502,
    "type_vocab_size": 3,
    "word_embed_proj_dim": 48,
    "num_local_experts": 12,
    "num_experts_per_tok": 3,
    "num_ln_in_parallel_attn": 1,
    "decoder_sparse_step": 2,
    "mlp_only_layers": [3],
    "hidden_act": "hidden_act",
    "hidden_activation": "hidden_activation",
    "activation_function": "activation_function",
    "activation": "activation",
    "attn_logit_softcapping": 30.0,
    "final_logit_softcapping": 50.0,
}
"""Every number and text that some reader asks for, each with a value of its own."""
PROBABILITIES = (
    *("embd_pdrop", "attn_pdrop", "resid_pdrop", "attention_dropout", "hidden_dropout", "residual_dropout"),
    *("embedding_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout"),
)
FLAGS = (
    *("tie_word_embeddings", "multi_query", "attention_bias", "mlp_bias", "qkv_bias", "use_parallel_residual"),
    *("use_bias", "use_qkv_bias", "enable_bias", "do_layer_norm_before", "layer_norm_elementwise_affine"),
    *("_remove_final_layer_norm", "new_decoder_architecture", "parallel_attn", "bias"),
)
CONFIGS = {
    "nothing": {},
    "defaults": SMALL,
    **{
        f"all {str(flag).lower()}": FULL
        | {name: (at + 1) / 100 for at, name in enumerate(PROBABILITIES)}
        | dict.fromkeys(FLAGS, flag)
        for flag in (False, True)
    },
}
MODELS = (
    *("gpt2", "llama-3.2-1b", "mixtral-8x7b", "gemma-2-2b", "bert-base", "opt-350m", "phi-2", "falcon-7b"),
    *("bloom-176b", "qwen3-30b-a3b", "phi-3-mini", "pythia-1.4b"),
)
"""Presets that between them have every kind of layer."""
RUN = Run(micro_batch=2, sequence=512, accumulation=1)
RUNS: dict[str, dict[str, Any]] = {
    "base": {},
    "micro-batch 3": {"micro_batch": 3},
    "sequence 640": {"sequence": 640},
    "accumulation 4": {"accumulation": 4},
    **{f"precision {name}": {"precision": one} for name, one in PRECISIONS.items()},
    "autocast, accumulation 4": {"precision": PRECISIONS["autocast"], "accumulation": 4},
    **{f"optimizer {name}": {"optimizer": one} for name, one in OPTIMIZERS.items()},
    "attention sdpa": {"attention": "sdpa"},
    "attention explicit": {"attention": "explicit"},
    "selective": {"recompute": 1, "attention": "explicit"},
    "full": {"recompute": 2},
    "fused": {"is_fused": True},
    "dropout 0.2": {"dropout": 0.2},
    "no dropout": {"dropout": 0.0},
    **{f"cpu, optimizer {name}": {"backend": "cpu", "optimizer": one} for name, one in OPTIMIZERS.items()},
    "cpu, explicit, dropout 0.2": {"backend": "cpu", "attention": "explicit", "dropout": 0.2},
}
LAYOUTS = {
    "base": Layout(),
    "dp 4": Layout(dp=4),
    "dp 4, copied buckets": Layout(dp=4, bucket_view=False),
    **{f"dp 6, ZeRO-{stage}": Layout(dp=6, zero=stage) for stage in (1, 2, 3)},
    "tp 4": Layout(tp=4),
    "tp 4, no sequence parallelism": Layout(tp=4, sequence_parallel=False),
    "pp 4": Layout(pp=4),
    "cp 2": Layout(cp=2),
    "dp 2, ep 2": Layout(dp=2, ep=2),
    "dp 2, cp 2, ep 4, ZeRO-3": Layout(dp=2, cp=2, ep=4, zero=3),
    "dp 4, tp 2, pp 2, cp 2, ep 2, ZeRO-1": Layout(dp=4, tp=2, pp=2, cp=2, ep=2, zero=1),
}
CATEGORIES = ("parameter", "gradient", "optimizer_state", "activation", "temporary", "workspace", "communication")
NUM_GPUS_OF_A_NODE = 4


def _models() -> dict[str, Any]:
    """Return what is read of configurations that say little and all, and what the presets count."""
    specs = {f"{kind}, {name}": _read(kind, config) for kind in READERS for name, config in CONFIGS.items()}
    counted = {name: preset(name) for name in PRESETS} | {name: one for name, one in specs.items() if one is not None}
    return {
        "read": {name: "refused" if one is None else _own_fields(one) for name, one in specs.items()},
        "parameters, those of a token, tensors": {
            name: [num_parameters(one), active_parameters(one), num_parameter_tensors(one)]
            for name, one in counted.items()
        },
    }


def _read(kind: str, config: dict[str, Any]) -> ModelSpec | None:
    try:
        return read_config(config | {"model_type": kind})
    except MemtraceError:
        return None


def _own_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    return {
        field.name: _own_fields(value) if isinstance(value := getattr(spec, field.name), ModelSpec) else value
        for field in dataclasses.fields(spec)
        if getattr(spec, field.name) != field.default and field.name not in {"name", "architecture"}
    }


def _terms() -> dict[str, Any]:
    """Return what a layer, the embedding and the head of each model keep, on a GPU and on the CPU."""
    runs = {"cuda": RUN, "cpu": replace(RUN, backend="cpu", attention="explicit", precision=PRECISIONS["fp32"])}
    return {
        f"{model}, {name}": dataclasses.asdict(activation_terms(preset(model), run, Layout()))
        for model in MODELS
        for name, run in runs.items()
    }


def _memory() -> dict[str, Any]:
    """Return the moments of a step, bytes by category, where one setting or one part of the layout is another."""
    found: dict[str, Any] = {"categories": list(CATEGORIES)}
    for model in ("gpt2", "mixtral-8x7b"):
        spec = preset(model)
        for name, more in RUNS.items():
            found[f"{model}, {name}"] = _of_run(spec, replace(RUN, **more), Layout())
        for name, layout in LAYOUTS.items():
            if layout.ep == 1 or spec.num_experts:
                found[f"{model}, {name}"] = _of_run(spec, replace(RUN, accumulation=layout.pp), layout)
    for model in MODELS:
        found[model] = _of_run(preset(model), RUN, Layout())
    return found


def _of_run(spec: ModelSpec, run: Run, layout: Layout) -> dict[str, Any]:
    answer = estimate(spec, run, layout)
    found: dict[str, Any] = {"range, reserved": [answer.low_bytes, answer.high_bytes, answer.reserved_bytes]}
    for is_last in (False, True) if layout.pp > 1 else (False,):
        stage = "last stage, " if is_last else ""
        for moment in moments(spec, run, layout, is_last=is_last, steady=True):
            sizes = [int(moment.by_category.get(name, 0)) for name in CATEGORIES]
            found[f"{stage}{moment.phase}, {moment.where}"] = sizes
    return found


def _step_times() -> dict[str, Any]:
    """Return the time of a step in ns: in all, and each of its terms."""
    terms = step_time(preset("gpt2"), RUN, Layout(), GPUS["a100-80gb"], speed_of("none")).terms
    found: dict[str, Any] = {"columns": ["total", *terms]}
    gpu = replace(GPUS["h100-80gb"], gpus_per_node=NUM_GPUS_OF_A_NODE)
    for model in ("gpt2", "mixtral-8x7b"):
        spec = preset(model)
        for name, layout in LAYOUTS.items():
            if layout.ep == 1 or spec.num_experts:
                found[f"{model}, {name}"] = _time_of(spec, replace(RUN, accumulation=8), layout, gpu)
        for recompute in (1, 2):
            run = replace(RUN, recompute=recompute, precision=PRECISIONS["fp32"])
            found[f"{model}, recompute {recompute}"] = _time_of(spec, run, Layout(), gpu)
        for framework in FRAMEWORKS:
            run = replace(RUN, framework=framework, accumulation=8)
            found[f"{model}, {framework}"] = _time_of(spec, run, Layout(dp=4, tp=2, pp=2), gpu)
    return found


def _time_of(spec: ModelSpec, run: Run, layout: Layout, gpu: Gpu) -> list[int]:
    time = step_time(spec, run, layout, gpu, speed_of(run.framework))
    return [round(1e9 * float(one)) for one in (time.total, *time.terms.values())]


FORECASTS: dict[str, Callable[[], dict[str, Any]]] = {
    "forecast-models": _models,
    "forecast-terms": _terms,
    "forecast-memory": _memory,
    "forecast-step-times": _step_times,
}
"""Each part by the name of its gold file."""
