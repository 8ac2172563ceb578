"""What a stack says about the code that allocated: a set of flags for each distinct stack, never for each event.

In: the stacks and frames of a rank. Out: one integer of flags a row of stacks.
"""

from __future__ import annotations

import re

import numpy as np

from memtrace.store.columns import NULL, IntArray
from memtrace.store.trace import RankTrace

PYTHON = 1
"""A Python frame."""
ENGINE = 2
"""Autograd's engine, or the call that starts it."""
MODULE = 4
"""A module being called."""
STEP = 8
"""An optimizer's step."""
SETUP = 16
"""A module being built or moved to a device."""
OPTIMIZER_SETUP = 32
"""An optimizer being built."""
BLAS_WORKSPACE = 64
"""The scratch memory of cuBLAS."""

RECOMPUTE = 128
"""Activation checkpointing that runs a forward again, in backward."""
COMMUNICATION = 256
"""Buckets and gathered or reduced shards of a distributed run."""

COLLECTIVE = 512
"""Scratch memory of a collective itself."""

BUCKET = 1024
"""Buckets in which gradients are reduced."""
REDUCTION = 2048
"""A reduction of sharded gradients, and what it leaves."""

_SETUP = {"__init__", "_apply", "convert", "reset_parameters", "to", "cuda"}
_MODULE = {"forward", "_call_impl", "_wrapped_call_impl"}
_RECOMPUTE = {"unpack_hook", "recompute_fn", "backward"}
_NODE = re.compile(r"\w+Backward\d*")
"""The name of a node of the autograd graph, which torch's profiler records as a frame without a file."""


def stack_roles(rank: RankTrace) -> IntArray:
    """Return the flags of every stack: those of its frames together."""
    frames, stacks = rank.table("frames"), rank.table("stacks")
    of_frame = [
        frame_role(rank.text(file) or "", rank.text(function) or "")
        for file, function in zip(frames["file"].tolist(), frames["function"].tolist(), strict=True)
    ]
    roles: list[int] = []
    # A calling stack is an earlier row, so its flags are there already.
    for frame, parent in zip(stacks["frame"].tolist(), stacks["parent"].tolist(), strict=True):
        roles.append(of_frame[frame] | (0 if parent == NULL else roles[parent]))
    return np.array(roles, np.int64)


def roles_of(roles: IntArray, stack: IntArray) -> IntArray:
    """Return the flags of the stack of each allocation; 0 where it has none."""
    return np.append(roles, 0)[np.where(stack == NULL, len(roles), stack)]


def frame_role(file: str, function: str) -> int:
    """Return the flags of one frame."""
    if "autograd::Engine" in function or function == "_engine_run_backward":
        return ENGINE
    if not file and _NODE.fullmatch(function):
        return ENGINE
    if not file.endswith(".py"):
        is_workspace = "getNewWorkspace" in function or "getCurrentCUDABlasHandle" in function
        return BLAS_WORKSPACE if is_workspace else 0
    name = function.rpartition(".")[2]
    if name in _RECOMPUTE and _is_in(file, "utils/checkpoint.py"):
        return PYTHON | RECOMPUTE
    if _is_in(file, "distributed/distributed_c10d.py"):
        return PYTHON | COMMUNICATION | COLLECTIVE
    if name in {"_pre_forward", "_ddp_init_helper"} and _is_in(file, "parallel/distributed.py"):
        # Called beside the module's forward, not around it: it rebuilds the buckets.
        return PYTHON | COMMUNICATION | BUCKET
    if _is_in(file, "_fully_shard/_fsdp_collectives.py"):
        return PYTHON | COMMUNICATION | (REDUCTION if name == "foreach_reduce" else 0)
    is_optimizer = "optim" in file.lower()
    if name in _MODULE:
        return PYTHON | MODULE
    if name == "step" and is_optimizer:
        return PYTHON | STEP
    if name in _SETUP:
        return PYTHON | (OPTIMIZER_SETUP if is_optimizer else SETUP)
    return PYTHON


def _is_in(file: str, ending: str) -> bool:
    """Return whether a file's path has this ending, whatever the separator."""
    return file.replace("\\", "/").endswith(ending)
