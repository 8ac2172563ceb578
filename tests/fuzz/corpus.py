"""The sound inputs that the fuzzer breaks: recordings made by ourselves, one of each kind that memtrace reads.

Every function returns a fresh document that the caller may change.
"""

from __future__ import annotations

import functools
import gzip
import pickle
import random
from pathlib import Path
from typing import Any

import orjson

from memtrace.schema.records import CHUNK_TABLES
from memtrace.schema.version import PART_FORMAT, TRACE_VERSION
from memtrace.store.writing.trace import write_trace
from tests.analysis.small_profile import Profile
from tests.builders import rank_trace, snapshot, trace_of

Document = dict[str, Any]

RECORDED = Path(__file__).parent.parent / "gold" / "traces"
SMALL = 3
"""Inputs made from a small recording for each made from a whole one: they are asked about many times as fast."""


@functools.cache
def _trace_texts() -> tuple[bytes, ...]:
    """Return the trace documents: those of the gold files, and a small one of every table, which is broken quickly."""
    recorded = [gzip.decompress(path.read_bytes()) for path in sorted(RECORDED.glob("*.json.gz"))]
    return (*recorded, *[_small_trace()] * SMALL * len(recorded))


def _small_trace() -> bytes:
    import tempfile

    events = [("alloc", 512, 1024), ("alloc", 2048, 4096), ("free_completed", 2048, 4096), ("alloc", 2048, 2048)]
    rows: dict[str, list[Document]] = {
        "frames": [{"file": "train.py", "line": 3, "function": "main"}],
        "stacks": [{"frame": 0, "parent": None}],
        "events": [
            {"action": action, "address": address, "size_bytes": size, "stack": 0, "time_ns": 1000 * (at + 1)}
            for at, (action, address, size) in enumerate(events)
        ],
        "initial_blocks": [{"window": 0, "device": "cuda:0", "address": 16384, "size_bytes": 512}],
        "steps": [{"step": at, "start_ns": 2000 * at, "end_ns": 2000 * at + 1500, "recorded": True} for at in range(3)],
        "phases": [{"phase": "forward", "step": 1, "microbatch": 0, "start_ns": 1000, "end_ns": 2500}],
        "scopes": [{"module": "net", "class_name": "Net", "start_ns": 1000, "end_ns": 2200, "step": 1}],
        "owners": [
            {"time_ns": 1500, "step": 1, "device": "cuda:0", "address": 512, "size_bytes": 1024, "tensor_bytes": 1024}
            | {"category": "parameter", "name": "net.weight", "dtype": "float32", "shape": "16x16"}
        ],
        "saved": [
            {"time_ns": 2500, "step": 1, "device": "cuda:0", "address": 2048, "size_bytes": 4096, "op": "MulBackward0"}
        ],
        "optimizers": [{"class_name": "Adam", "num_parameters": 256, "options": '{"lr": 0.1}'}],
        "kernels": [
            {"start_ns": 1200, "duration_ns": 300, "name": "gemm", "kind": "kernel", "process": 1, "thread": 1}
            | {"device": 0, "stream": 7, "correlation": 1}
        ],
        "segments": [
            {"device": "cuda:0", "address": 0, "total_bytes": 2**21, "allocated_bytes": 512, "active_bytes": 512}
            | {"requested_bytes": 512, "segment_type": "small", "pool_id": "0,0"}
        ],
        "blocks": [{"segment": 0, "address": 512, "size_bytes": 512, "requested_bytes": 512, "state": "inactive"}],
        "annotations": [{"name": "Optimizer.step", "start_ns": 2000, "end_ns": 3000}],
    }
    devices = [{"name": "cuda:0", "capacity_bytes": 2**30}]
    header = {"rank": 0, "world_size": 1, "pid": 7, "host": "host", "devices": devices, "environment": {}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        write_trace(trace_of(rank_trace(header, **rows)), path)
        return path.read_bytes()


def trace_document(random_: random.Random) -> Document:
    """Return a parsed trace file of one or more ranks."""
    document: Document = orjson.loads(random_.choice(_trace_texts()))
    if random_.random() < 0.3:
        _spread_over_ranks(document, random_.randrange(2, 5))
    return document


def _spread_over_ranks(document: Document, num_ranks: int) -> None:
    """Let one rank stand for several of a run. Affects: the document."""
    first = orjson.dumps(document["ranks"][0])
    document["ranks"] = [orjson.loads(first) for _ in range(num_ranks)]
    for at, rank in enumerate(document["ranks"]):
        rank["header"] |= {"rank": at, "local_rank": at, "world_size": num_ranks, "pid": 100 + at}


@functools.cache
def _snapshot_pickles() -> tuple[bytes, ...]:
    small = snapshot().live_before(0, 512).annotate("step 1", "START").alloc(4096, 1000, frames=[("a.py", 1, "f")])
    small.alloc(8192, 100, frames=[("a.py", 2, "g"), ("a.py", 1, "f")]).free(4096).annotate("step 1", "END")
    small.oom(2**30, device_free=2**20)
    recorded = [path.read_bytes() for path in sorted(RECORDED.glob("*.pickle"))]
    return (*recorded, *[pickle.dumps(small.build())] * SMALL * len(recorded))


def snapshot_document(random_: random.Random) -> Document:
    """Return what torch pickles as a memory snapshot."""
    document: Document = pickle.loads(random_.choice(_snapshot_pickles()))
    return document


def profile_document(_: random.Random) -> Document:
    """Return a profile of torch: memory events, kernels, communication, steps."""
    profile = Profile().step(1, 0, 100).gpu(10, 30, launch=2).communication(25, 60).copy(60, 70).step(2, 100, 200)
    profile.gpu(110, 130).add("user_annotation", "Optimizer.step#Adam.step", 150, 190)
    profile.add("cpu_op", "aten::mm", 1, 9, **{"External id": 3}).add("python_function", "train.py(3): main", 0, 200)
    noted = {"Collective name": "allreduce", "In msg nelems": 64, "Out msg nelems": 64, "dtype": "Float"}
    profile.communication(132, 140, **noted, **{"Group size": 2, "Process Group Name": "default"})
    for at, (size, total) in enumerate(((1024, 1024), (4096, 5120), (-1024, 4096), (2048, 6144))):
        args = {"Bytes": size, "Addr": 4096 * (at % 2 + 1), "Device Type": 1, "Device Id": 0}
        args |= {"Total Allocated": total, "Total Reserved": 2**21}
        event = {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": 5 + at}
        profile.events.append({**event, "args": args})
    properties = [{"id": 0, "name": "GPU", "totalGlobalMem": 2**34}]
    facts = {"schemaVersion": 1, "deviceProperties": properties, "baseTimeNanoseconds": 1_700_000_000_000_000_000}
    distributed = {"distributedInfo": {"rank": 0, "world_size": 2, "backend": "nccl"}}
    return {**facts, **distributed, "traceEvents": profile.events}


def part_records(random_: random.Random) -> dict[str, list[Document]]:
    """Return the records of each file of a folder of parts, by name, as before a trace is assembled."""
    document = trace_document(random_)
    files: dict[str, list[Document]] = {}
    for rank in document["ranks"]:
        header = rank["header"]
        name = f"rank{header.get('rank') or 0:05d}-host-{header.get('pid') or 7}-0000"
        files[f"{name}.jsonl"] = _main_records(rank, document["strings"])
        files[f"{name}.chunk-000000.jsonl"] = _chunk_records(rank["tables"], document["strings"], 0)
        files[f"{name}.status.json"] = [_status()]
    files["launcher.json"] = [{"pid": 2**22 + 1, "host": "host", "start_ticks": 1, "header": document["header"]}]
    return files


def _main_records(rank: Document, strings: list[str]) -> list[Document]:
    header = dict(rank["header"])
    devices = header.pop("devices", None) or []
    steps = rank["tables"].get("steps", {})
    rows = [dict(zip(steps, values, strict=True)) for values in zip(*steps.values(), strict=True)]
    return [
        {"k": "header", "format": PART_FORMAT, "version": TRACE_VERSION, **header},
        *({"k": "device", **device} for device in devices),
        *({"k": "step", **row} for row in rows),
        {"k": "warning", "slug": "recorder-disabled", "message": f"{strings[0]} was not seen.", "count": 2},
        {"k": "end", "end_ns": 10**18, "complete": True},
    ]


def _chunk_records(tables: Document, strings: list[str], number: int) -> list[Document]:
    chunk = {"k": "chunk", "number": number, "step": 1, "reason": "start", "source": "cpu_profiler"}
    columns = [{"k": name, "columns": tables[name]} for name in CHUNK_TABLES if name in tables]
    facts = {"start_ns": 1, "end_ns": 10**18, "initial_bytes": 0, "num_lost": 0}
    return [{**chunk, **facts}, {"k": "strings", "values": strings}, *columns, {"k": "chunk_end"}]


def _status() -> Document:
    times = {"step": 3, "phase": "forward", "since_ns": 10**18, "ended_step": 2, "measured_step": 2}
    sizes = {"allocated_bytes": 2**20, "peak_allocated_bytes": 2**21, "reserved_bytes": 2**22, "num_alloc_retries": 0}
    return {**times, "device": "cuda:0", **sizes, "categories_step": 2, "by_category": {"parameter": 2**19}}


_CONFIGS: tuple[Document, ...] = (
    {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100, "n_positions": 128},
    {
        **{"model_type": "llama", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8},
        **{"num_key_value_heads": 4, "intermediate_size": 512, "vocab_size": 1000, "max_position_embeddings": 2048},
        **{"hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False},
    },
    {
        **{"model_type": "mixtral", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8},
        **{"num_key_value_heads": 4, "intermediate_size": 512, "vocab_size": 1000, "num_local_experts": 8},
        **{"num_experts_per_tok": 2, "max_position_embeddings": 2048, "sliding_window": None},
    },
    {
        **{"model_type": "qwen2_moe", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8},
        **{"num_key_value_heads": 4, "intermediate_size": 512, "moe_intermediate_size": 64, "vocab_size": 1000},
        **{"num_experts": 8, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 128, "qkv_bias": True},
        **{"decoder_sparse_step": 2, "mlp_only_layers": [0], "max_position_embeddings": 2048},
    },
    {
        **{"model_type": "falcon", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8},
        **{"num_kv_heads": 4, "vocab_size": 1000, "new_decoder_architecture": True, "ffn_hidden_size": 512},
    },
    {"model_type": "bert", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "vocab_size": 1000},
    {
        "model_type": "gemma3",
        "text_config": {
            **{"model_type": "gemma3_text", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8},
            **{"num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 512, "vocab_size": 1000},
        },
    },
)


def config_document(random_: random.Random) -> Document:
    """Return a model's config.json."""
    config: Document = orjson.loads(orjson.dumps(random_.choice(_CONFIGS)))
    return config


def layouts_document(_: random.Random) -> list[Document]:
    """Return a table of layouts to evaluate."""
    row = {"model": "gpt2", "gpu": "24GiB", "sequence": 512, "dp": 8, "tp": 1, "micro_batch": 2, "zero": 1}
    other = {"model": "llama-3-8b", "gpu": "h100-80gb", "sequence": 2048, "pp": 2, "cp": 2, "recompute": "full"}
    return [row, other, {**row, "zero": 3, "precision": "bf16", "optimizer": "lion"}]


def search_state(_: random.Random) -> Document:
    """Return what `memtrace fit` keeps of a search."""
    measured = {"peak_bytes": 2**20, "needed_bytes": 2**21, "first_step_peak_bytes": 2**20, "device_bytes": None}
    runs = [{"micro_batch": size, **measured, "out_of_memory": False} for size in (1, 2)]
    return {"format": "memtrace-fit-state", "version": 1, "search": {"command": ["train"], "steps": 2}, "runs": runs}
