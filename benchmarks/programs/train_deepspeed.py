"""Train a small GPT-2 or Llama with DeepSpeed's ZeRO on one process of the CPU, and count what is held between passes.

    python train_deepspeed.py --config '{"model_type": "gpt2", …}' --stage 3

Run by `estimators.py` in an environment that has DeepSpeed. Prints JSON: parameters, and bytes of all tensors of the
process after the backward pass, when gradients and states are all there.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import warnings

os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "DS_ACCELERATOR": "cpu"}
os.environ.setdefault("MASTER_PORT", "29777")

import deepspeed
import torch
import transformers

BUCKET = 1 << 16
"""Elements of a communication bucket: small, since DeepSpeed's estimates leave buckets out."""


def settings(stage: int) -> dict[str, object]:
    """Return DeepSpeed's configuration: bf16 weights, float32 master copy, ZeRO of this stage."""
    buckets = {"reduce_bucket_size": BUCKET, "stage3_prefetch_bucket_size": BUCKET, "allgather_bucket_size": BUCKET}
    buckets = {name: size for name, size in buckets.items() if stage == 3 or not name.startswith("stage3")}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": stage, "overlap_comm": False, "contiguous_gradients": False, **buckets},
        "steps_per_print": 1_000_000,
    }


def held_bytes() -> int:
    """Return the bytes of all distinct storages of tensors that Python knows of."""
    gc.collect()
    storages = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in gc.get_objects():
            if isinstance(one, torch.Tensor) and one.device.type == "cpu":
                storage = one.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def main() -> None:
    """Train three steps and print what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--stage", type=int, choices=(2, 3), required=True)
    args = parser.parse_args()
    # On the CPU DeepSpeed would compile kernels for shared memory, which one process has no use for.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    fields = json.loads(args.config)
    config = transformers.CONFIG_MAPPING[fields.pop("model_type")](**fields, use_cache=False)
    model = transformers.AutoModelForCausalLM.from_config(config)
    total = sum(one.numel() for one in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings(args.stage))
    for _ in range(3):
        tokens = torch.zeros((1, 8), dtype=torch.long)
        loss = engine(input_ids=tokens, labels=tokens).loss
        engine.backward(loss)
        del loss
        held = held_bytes()
        engine.step()
    print("RESULT " + json.dumps({"num_parameters": total, "held_bytes": held}))


if __name__ == "__main__":
    main()
