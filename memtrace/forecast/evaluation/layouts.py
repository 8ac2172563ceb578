"""Rows of a table as layouts: a model, a GPU, and how it is trained, with what stood in for empty cells.

In: checked values of a row. Out: `GivenLayout`. That a layout cannot be (heads that do not divide, more stages than
layers) is an error that names the row and the column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from memtrace.errors import MemtraceError
from memtrace.forecast.evaluation.columns import MODEL_COLUMNS, wrong
from memtrace.forecast.gpus import Gpu, gpu_named, lacks_8bit
from memtrace.forecast.memory.layout import FRAMEWORK_LOSSES, RECOMPUTE, Layout, Run
from memtrace.forecast.memory.optimizers import OPTIMIZERS
from memtrace.forecast.memory.stages import counts_ends, in_framework
from memtrace.forecast.model.precision import precision_in
from memtrace.forecast.model.presets import preset
from memtrace.forecast.model.spec import ModelSpec

AXES = ("dp", "tp", "pp", "cp", "ep")
TIED_BELOW = 4 * 10**9
"""Parameters below which a Llama-like model shares embedding and head: Llama 3.2 1B and 3B, Qwen2.5 to 3B, Qwen3 to 4B
do; Llama 3 8B, Mistral 7B and Qwen2.5 7B do not."""
_ALWAYS_GATED = ("nanotron", "torchtitan")
"""Frameworks whose models are Llamas."""
_DIMENSIONS = ("hidden", "layers", "heads")
_FIELDS = {"layers": "num_layers", "heads": "num_heads", "kv_heads": "num_kv_heads"}
"""Where a model has what a column says of it, if not under the same name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenLayout:
    """One row of a table."""

    spec: ModelSpec
    gpu: Gpu
    run: Run
    layout: Layout
    assumed: tuple[str, ...]
    """What the row left out and what stood in for it, in words."""


def given_layout(values: Mapping[str, Any], number: int, defaults: Mapping[str, Any]) -> GivenLayout:
    """Return the layout of one row; `defaults` stand in for its empty cells.

    Raises:
        MemtraceError: the row names no model, no GPU or no sequence, or cannot be.
    """
    names_model = any(name in values for name in MODEL_COLUMNS)
    cells = {name: value for name, value in defaults.items() if not (names_model and name == "spec")} | dict(values)
    for name, hint in (("gpu", "--gpu"), ("sequence", "--sequence")):
        if name not in cells:
            raise wrong(number, name, f"is empty, and {hint} gives no default")
    assumed: list[str] = []
    spec = _spec(cells, number, assumed)
    layout = _layout(cells, spec)
    _check(spec, layout, cells, number)
    gpu = _gpu(cells, number)
    run = replace(_run(cells), context=gpu.context)
    if run.precision.is_8bit and lacks_8bit(gpu):
        raise wrong(number, "precision", f"{gpu.name} has no FP8, which {run.precision.name} is for")
    chosen = {"precision": run.precision.name, "loss": run.loss, "attention": run.attention}
    # A recipe may be another than the cell says: the framework's own.
    assumed += [f"{name} {value}" for name, value in chosen.items() if cells.get(name) != value]
    return GivenLayout(spec=spec, gpu=gpu, run=run, layout=layout, assumed=tuple(assumed))


def _layout(cells: Mapping[str, Any], spec: ModelSpec) -> Layout:
    axes = {axis: cells.get(axis, 1) for axis in (*AXES, "virtual_stages")}
    more = {name: cells.get(name, 0) for name in ("group", "zero")}
    plain = Layout(**axes, **more, schedule=cells.get("schedule", "1f1b"))
    layout = in_framework(plain, spec, cells.get("framework", "none"))
    return replace(layout, reshard=int(cells["reshard"])) if "reshard" in cells else layout


def _run(cells: Mapping[str, Any]) -> Run:
    framework = cells.get("framework", "none")
    return Run(
        micro_batch=cells.get("micro_batch", 1),
        accumulation=cells.get("accumulation", 1),
        sequence=cells["sequence"],
        recompute=RECOMPUTE.index(cells.get("recompute", "none")),
        precision=precision_in(cells.get("precision", "bf16-mixed"), framework),
        optimizer=OPTIMIZERS[cells.get("optimizer", "adamw")],
        attention=cells.get("attention", _attention(cells)),
        loss=cells.get("loss", FRAMEWORK_LOSSES.get(framework, "plain")),
        framework=framework,
        is_fused=True,
    )


def _attention(cells: Mapping[str, Any]) -> str:
    """Return the attention of a row that names none.

    Megatron-LM's selective recomputation is of scores that are written out; Megatron-DeepSpeed always writes them out.
    """
    framework = cells.get("framework")
    is_core = framework == "megatron" and cells.get("recompute") == "selective"
    return "explicit" if is_core or framework == "deepspeed" else "flash"


def _gpu(cells: Mapping[str, Any], number: int) -> Gpu:
    try:
        gpu = gpu_named(cells["gpu"].lower().replace("_", "-"))
    except MemtraceError as error:
        raise wrong(number, "gpu", f"{error.message}; {error.hint}") from None
    given = {
        "gpus_per_node": cells.get("gpus_per_node"),
        "intra_bytes_s": cells["intra_gbs"] * 1e9 if "intra_gbs" in cells else None,
        "inter_bytes_s": cells["inter_gbs"] * 1e9 if "inter_gbs" in cells else None,
    }
    return replace(gpu, **{name: value for name, value in given.items() if value is not None})


def _spec(cells: Mapping[str, Any], number: int, assumed: list[str]) -> ModelSpec:
    if "spec" in cells:
        spec: ModelSpec = cells["spec"]
        return spec
    if "model" in cells:
        try:
            spec = preset(cells["model"].lower())
        except MemtraceError as error:
            raise wrong(number, "model", f"{error.message}; {error.hint}") from None
        _check_dimensions(spec, cells, number)
        return spec
    for name in _DIMENSIONS:
        if name not in cells:
            raise wrong(number, name, "is empty: a row needs a model, or hidden, layers and heads")
    try:
        return _of_dimensions(cells, assumed)
    except MemtraceError as error:
        raise wrong(number, "heads", error.message) from None


def _check_dimensions(spec: ModelSpec, cells: Mapping[str, Any], number: int) -> None:
    """Raise `MemtraceError` where a row says of a named model what it is not."""
    for name in MODEL_COLUMNS[1:]:
        own = (spec.ffn or spec.expert_ffn) if name == "ffn" else getattr(spec, _FIELDS.get(name, name))
        if cells.get(name, own) != own:
            raise wrong(number, name, f"{spec.name} has {own}, not {cells[name]}; leave model or this column empty")


def _of_dimensions(cells: Mapping[str, Any], assumed: list[str]) -> ModelSpec:
    hidden, heads = cells["hidden"], cells["heads"]
    if hidden % heads:
        raise MemtraceError(f"a hidden size of {hidden} cannot be divided among {heads} heads")
    ffn = cells.get("ffn", 4 * hidden)
    gated = cells.get("gated", cells.get("framework") in _ALWAYS_GATED or ffn != 4 * hidden)
    vocabulary = cells.get("vocabulary", 50257)
    spec = ModelSpec(
        name=f"{cells['layers']} layers of {hidden}",
        architecture="llama" if gated else "plain",
        num_layers=cells["layers"],
        hidden=hidden,
        num_heads=heads,
        num_kv_heads=cells.get("kv_heads", heads),
        head_dim=hidden // heads,
        ffn=ffn,
        vocabulary=vocabulary,
        gated=gated,
        activation="silu" if gated else "gelu",
        norm="rms" if gated else "layer",
        has_norm_bias=not gated,
        has_qkv_bias=not gated,
        has_out_bias=not gated,
        has_mlp_bias=not gated,
        has_fused_qkv=not gated,
    )
    large = gated and spec.num_layers * (4 * hidden**2 + 3 * hidden * ffn) + vocabulary * hidden >= TIED_BELOW
    for name, value in (("kv_heads", spec.num_kv_heads), ("ffn", ffn), ("vocabulary", vocabulary)):
        if name not in cells:
            assumed.append(f"{name} {value}")
    for name, is_so in (("gated", gated), ("tied", not large)):
        if name not in cells:
            assumed.append(f"{name} {'yes' if is_so else 'no'}")
    return replace(spec, tied=cells.get("tied", not large))


def _check(spec: ModelSpec, layout: Layout, cells: Mapping[str, Any], number: int) -> None:
    """Raise `MemtraceError` for a layout that no launcher would accept."""
    if spec.num_heads % layout.tp:
        raise wrong(number, "tp", f"{spec.num_heads} heads cannot be divided among {layout.tp} ranks")
    if layout.pp > spec.num_layers:
        raise wrong(number, "pp", f"{spec.num_layers} layers cannot fill {layout.pp} stages")
    virtual = cells.get("virtual_stages", 1)
    if virtual * layout.pp > spec.num_layers and not counts_ends(spec, layout):
        raise wrong(number, "virtual_stages", f"{spec.num_layers} layers cannot fill {virtual} x {layout.pp} stages")
    if virtual > 1 and layout.pp == 1:
        raise wrong(number, "virtual_stages", "only a pipeline (pp above 1) has an interleaved schedule")
    if layout.group and virtual == 1:
        raise wrong(number, "group", "only an interleaved schedule (virtual_stages above 1) has groups")
    if layout.group > cells.get("accumulation", 1):
        raise wrong(number, "group", f"there are no {layout.group} micro-batches (accumulation) to run in a row")
    if layout.schedule != "1f1b":
        if layout.pp == 1 or virtual > 1:
            raise wrong(number, "schedule", f"{layout.schedule} is of a pipeline (pp above 1) without virtual_stages")
        if cells.get("accumulation", 1) < 2 * layout.pp:
            raise wrong(number, "schedule", f"{layout.schedule} needs {2 * layout.pp} micro-batches, twice its stages")
    if layout.world_size > 2**24:
        raise wrong(number, "dp", f"{layout.world_size:,} GPUs are more than can be counted")
    if layout.ep > 1 and not spec.num_experts:
        raise wrong(number, "ep", f"{spec.name} has no experts to divide among {layout.ep} ranks")
    if layout.ep > 1 and (spec.num_experts % layout.ep or layout.shards % layout.ep):
        raise wrong(number, "ep", f"{layout.ep} must divide the {spec.num_experts} experts and dp x cp")
    if cells["sequence"] % layout.cp:
        raise wrong(number, "cp", f"a sequence of {cells['sequence']} cannot be divided among {layout.cp} ranks")
    tokens = cells.get("micro_batch", 1) * cells["sequence"]
    if tokens > 2**31:
        raise wrong(number, "micro_batch", f"{tokens:,} tokens a micro-batch are more than can be counted")
    step = tokens * cells.get("accumulation", 1) * layout.dp
    if step > 2**45:
        raise wrong(number, "accumulation", f"{step:,} tokens a step are more than can be counted")
