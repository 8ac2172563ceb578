"""What to type for a layout: settings of torchtitan, Megatron-LM, DeepSpeed and plain FSDP2.

In: the numbers of one layout. Out: text by launcher. A launcher that cannot run a layout is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

Numbers = Mapping[str, int]
"""Axes, ZeRO stage, micro-batch, accumulation, sequence and global sequences by name."""


def launch_settings(numbers: Numbers, recompute: str) -> dict[str, str]:
    """Return what to type, by launcher.

    >>> numbers = {"dp": 8, "tp": 1, "pp": 1, "cp": 1, "ep": 1, "zero": 3, "micro_batch": 2, "accumulation": 4}
    >>> list(launch_settings(numbers | {"sequence": 4096, "global_sequences": 64}, "full"))
    ['torchtitan', 'Megatron-LM', 'DeepSpeed', 'FSDP2']
    """
    found = {"torchtitan": _torchtitan(numbers, recompute), "Megatron-LM": _megatron(numbers, recompute)}
    if numbers["tp"] == numbers["pp"] == numbers["cp"] == numbers["ep"] == 1:
        found["DeepSpeed"] = _deepspeed(numbers, recompute)
        if numbers["zero"] >= 2:
            found["FSDP2"] = _fsdp2(numbers, recompute)
    return found


def _interleaves(numbers: Numbers) -> bool:
    return numbers.get("virtual_stages", 1) > 1


def _torchtitan(numbers: Numbers, recompute: str) -> str:
    """Return options of torchtitan, which shards weights, gradients and states together."""
    is_sharded = numbers["zero"] >= 1
    mode = "selective" if recompute == "selective" else recompute
    options = {
        "training.local_batch_size": numbers["micro_batch"] * (numbers["accumulation"] if numbers["pp"] > 1 else 1),
        "training.global_batch_size": numbers["global_sequences"],
        "training.seq_len": numbers["sequence"],
        "parallelism.data_parallel_replicate_degree": 1 if is_sharded else numbers["dp"],
        "parallelism.data_parallel_shard_degree": numbers["dp"] if is_sharded else 1,
        "parallelism.fsdp_reshard_after_forward": "always" if numbers["zero"] == 3 else "never",
        "parallelism.tensor_parallel_degree": numbers["tp"],
        "parallelism.pipeline_parallel_degree": numbers["pp"],
        "parallelism.context_parallel_degree": numbers["cp"],
        "parallelism.expert_parallel_degree": numbers["ep"],
        "activation_checkpoint.mode": mode,
    }
    if _interleaves(numbers):
        options["parallelism.pipeline_parallel_schedule"] = "Interleaved1F1B"
    return " ".join(f"--{name} {value}" for name, value in options.items())


def _megatron(numbers: Numbers, recompute: str) -> str:
    words = [
        f"--tensor-model-parallel-size {numbers['tp']}",
        f"--pipeline-model-parallel-size {numbers['pp']}",
        f"--context-parallel-size {numbers['cp']}",
        f"--micro-batch-size {numbers['micro_batch']}",
        f"--global-batch-size {numbers['global_sequences']}",
        f"--seq-length {numbers['sequence']}",
        "--bf16",
    ]
    words += [f"--num-virtual-stages-per-pipeline-rank {numbers['virtual_stages']}"] if _interleaves(numbers) else []
    words += ["--sequence-parallel"] if numbers["tp"] > 1 else []
    words += [f"--expert-model-parallel-size {numbers['ep']}"] if numbers["ep"] > 1 else []
    words += {
        0: [],
        1: ["--use-distributed-optimizer"],
        2: ["--use-megatron-fsdp", "--data-parallel-sharding-strategy optim_grads"],
        3: ["--use-megatron-fsdp", "--data-parallel-sharding-strategy optim_grads_params"],
    }[numbers["zero"]]
    words += {
        "none": [],
        "selective": ["--recompute-granularity selective"],
        "full": ["--recompute-granularity full", "--recompute-method uniform", "--recompute-num-layers 1"],
    }[recompute]
    return " ".join(words)


def _deepspeed(numbers: Numbers, recompute: str) -> str:
    config = {
        "train_micro_batch_size_per_gpu": numbers["micro_batch"],
        "gradient_accumulation_steps": numbers["accumulation"],
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": numbers["zero"]},
    }
    note = "" if recompute == "none" else f"  # and {recompute} activation checkpointing in the model"
    return json.dumps(config) + note


def _fsdp2(numbers: Numbers, recompute: str) -> str:
    reshard = numbers["zero"] == 3
    call = f"fully_shard(layer, reshard_after_forward={reshard}) for each layer, then fully_shard(model)"
    batch = f"micro-batch {numbers['micro_batch']}, {numbers['accumulation']} micro-batches a step"
    wrapped = "" if recompute == "none" else f"; checkpoint_wrapper on each layer ({recompute}) before it"
    return f"{call}{wrapped}; {batch}"
