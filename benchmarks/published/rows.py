"""Published runs as rows of a table of layouts, with what was measured.

In: the folder of published CSV files. Out: `PublishedRun`s. What a source leaves unsaid and its code says (dimensions
of a model by its name, the loss, the schedule) is written out here, with where it is from.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """One published run."""

    dataset: str
    group: str
    """Runs of one group share what a fit could learn of them by heart: a model on a cluster."""
    cells: dict[str, Any]
    """As `--evaluate` takes them."""
    tokens_per_second_per_gpu: float | None
    memory_bytes: int | None
    """As the source measures it; `None` where it does not."""
    memory_kind: str = "reserved"
    """peak or reserved (of torch's allocator), or process (as nvidia-smi shows it)."""
    memory_stage: str = "fullest"
    """Which pipeline stage was measured: the fullest, or the first."""


MPT = {
    "125m": (768, 12, 12),
    "350m": (1024, 24, 16),
    "760m": (1536, 24, 12),
    "1b": (2048, 24, 16),
    "3b": (2560, 32, 20),
    "7b": (4096, 32, 32),
    "13b": (5120, 40, 40),
    "30b": (7168, 48, 56),
    "70b": (8192, 80, 64),
}
"""Hidden size, layers and heads: llm-foundry scripts/train/yamls/pretrain/mpt-*.yaml."""
NANOTRON = {
    "1B": (2048, 16, 32, 8192),
    "3B": (3072, 28, 32, 8192),
    "8B": (4096, 32, 32, 14336),
    "80B": (8192, 80, 64, 28672),
}
"""Hidden size, layers, heads, MLP: the playbook's script that made the sweep; 4,096 tokens, a vocabulary of 131,072."""
MEGATRON = {
    "megatron-22B": (6144, 48, 64, 1),
    "megatron-175B": (12288, 96, 96, 3),
    "megatron-530B": (20480, 105, 128, 3),
    "megatron-1T": (25600, 128, 160, 1),
}
"""Hidden size, layers, heads, stages a rank: Korthikanti et al., table 3."""
NEMOTRON_15B = {
    "hidden": 6144,
    "layers": 32,
    "heads": 48,
    "kv_heads": 8,
    "ffn": 24576,
    "vocabulary": 256000,
    "tied": "no",
}
"""arXiv 2402.16819, table 1 and section 2; squared ReLU, no gate, embedding and head apart."""


def published_runs(folder: Path) -> list[PublishedRun]:
    """Return all runs of a folder, in the order of its files."""
    return [run for read in (foundry, bloom, dgxc, small_tables, playbook) for run in read(folder)]


def foundry(folder: Path) -> Iterator[PublishedRun]:
    """Yield llm-foundry's runs: FSDP on A100, 1600 Gbit/s a node, a fused cross entropy, flash attention."""
    for row in _rows(folder / "llm_foundry.csv"):
        hidden, layers, heads = MPT[row["model"]]
        cells = {"hidden": hidden, "layers": layers, "heads": heads, "vocabulary": 50368, "framework": "fsdp"}
        cells |= {"gpu": row["gpu"], "inter_gbs": 25, "sequence": row["seq"], "micro_batch": row["mbs"]}
        cells |= {"accumulation": row["ga"], "dp": row["gpus"], "zero": 3, "loss": "fused"}
        cells |= {"recompute": "full" if row["act_ckpt"] == "True" else "none", "precision": "bf16-mixed"}
        yield PublishedRun(
            dataset="llm-foundry",
            group=f"{row['model']} {row['gpu']}",
            cells=cells,
            tokens_per_second_per_gpu=float(row["tok_s_gpu"]),
            memory_bytes=None,
        )


def bloom(folder: Path) -> Iterator[PublishedRun]:
    """Yield BLOOM's search: Megatron-DeepSpeed, scores written out, about 6.25 GB/s a GPU between nodes."""
    for row in _rows(folder / "bloom_prequel.csv"):
        names = ("hidden", "layers", "heads")
        cells = {name: row[name] for name in names} | {"vocabulary": row["vocab"], "gpu": "a100-80gb", "sequence": 2048}
        cells |= {"inter_gbs": 6.25, "micro_batch": row["mbs"], "attention": "explicit", "framework": "deepspeed"}
        number = int(row["gbs"]) // (int(row["mbs"]) * int(row["dp"]))
        cells |= {
            "accumulation": number,
            "recompute": "full",
            **{axis: row[axis] for axis in ("dp", "tp", "pp", "zero")},
        }
        gpus = int(row["dp"]) * int(row["tp"]) * int(row["pp"])
        if gpus != 8 * int(row["nodes"]):
            continue
        seconds = float(row["sec_it"])
        yield PublishedRun(
            dataset="BLOOM",
            group=" ".join(row[name] for name in names),
            cells=cells,
            tokens_per_second_per_gpu=int(row["gbs"]) * 2048 / seconds / gpus,
            memory_bytes=round(float(row["mem_gb"]) * GIB) if row["mem_gb"] else None,
            memory_kind="process",
        )


RESERVED = {("8b bf16", "8"): 70833405952, ("15b bf16", "64"): 72972500992}
"""`peak_memory_usage` in the logs that NVIDIA's READMEs show, by run and GPUs: NeMo's `MegatronStrategy.training_step`
takes it from `torch.cuda.max_memory_reserved`."""
VIRTUAL_STAGES = {"llama-3-70b": 5}
"""Stages a rank in NVIDIA's recipes for H100, which its tables leave out: NeMo `llama3_70b`, virtual pipeline size."""


def dgxc(folder: Path) -> Iterator[PublishedRun]:
    """Yield NVIDIA's collection: NeMo on H100, BF16 and FP8."""
    for row in _rows(folder / "dgxc_h100.csv"):
        layout = {"tp": 1, "pp": 1, "cp": 1} | json.loads(row["layout"])
        cells = NEMOTRON_15B if row["model"] == "nemotron4-15b" else {"model": row["model"]}
        number = int(row["gbs"]) // (int(row["mbs"]) * layout["dp"])
        cells = cells | layout | {"gpu": "h100-80gb", "sequence": row["seq"], "micro_batch": row["mbs"]}
        cells |= {"accumulation": number, "zero": 1, "framework": "megatron", "precision": f"{row['precision']}-mixed"}
        cells |= {"virtual_stages": VIRTUAL_STAGES.get(row["model"], 1)}
        yield PublishedRun(
            dataset=f"H100 collection {row['precision'].upper()}",
            group=row["name"],
            cells=cells,
            tokens_per_second_per_gpu=int(row["gbs"]) * int(row["seq"]) / float(row["step_s"]) / int(row["gpus"]),
            memory_bytes=RESERVED.get((row["name"], row["gpus"])),
        )


def small_tables(folder: Path) -> Iterator[PublishedRun]:
    """Yield torchtitan's tables and Korthikanti et al., table 5."""
    for row in _rows(folder / "small_tables.csv"):
        is_titan = row["dataset"] == "torchtitan"
        axes = ("dp", "tp", "pp", "cp", "ep", "zero")
        cells = {axis: row[axis] for axis in axes} | {"gpu": row["gpu"], "sequence": row["seq"]}
        cells |= {"micro_batch": row["mbs"], "accumulation": row["ga"]}
        cells |= {"recompute": ("none", "selective", "full")[int(row["recompute"])]}
        cells |= {"framework": "torchtitan" if is_titan else "megatron"}
        if is_titan:
            cells |= {"model": row["model"]}
            # The labels say SAC: selective recomputation by operator.
            cells |= {"recompute": "selective"} if "SAC" in row["label"] else {}
        else:
            hidden, layers, heads, virtual = MEGATRON[row["model"]]
            cells |= {"hidden": hidden, "layers": layers, "heads": heads, "vocabulary": 51200, "attention": "explicit"}
            cells |= {"virtual_stages": virtual}
        yield PublishedRun(
            dataset="torchtitan" if is_titan else "Korthikanti",
            group=row["model"],
            cells=cells,
            tokens_per_second_per_gpu=float(row["pub_tok_s_gpu"]),
            memory_bytes=round(float(row["pub_mem_gib"]) * GIB) if row["pub_mem_gib"] else None,
        )


def playbook(folder: Path) -> Iterator[PublishedRun]:
    """Yield the Ultra-Scale Playbook's sweep: nanotron on H100, gradients added up in float32.

    Its table is written by rank 0, of the first stage (nanotron `log_throughput`), after four steps.
    """
    for row in _rows(folder / "ultrascale_playbook.csv"):
        hidden, layers, heads, ffn = NANOTRON[row["model"]]
        cells = {"hidden": hidden, "layers": layers, "heads": heads, "ffn": ffn, "vocabulary": 131072}
        cells |= {"gpu": "h100-80gb", "sequence": 4096, "micro_batch": row["mbs"], "accumulation": row["ga"]}
        cells |= {axis: row[axis] for axis in ("dp", "tp", "pp", "zero")} | {"framework": "nanotron"}
        yield PublishedRun(
            dataset="Playbook",
            group=f"{row['model']} on {row['nodes']} nodes",
            cells=cells,
            tokens_per_second_per_gpu=float(row["tok_s_gpu"]) if row["tok_s_gpu"] else None,
            memory_bytes=round(float(row["mem_gb"]) * GIB) if row["mem_gb"] else None,
            memory_kind="peak",
            memory_stage="first",
        )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
