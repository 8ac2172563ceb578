"""Rank 0 of many on torch's own CUDA code: a process group whose collectives end at once and move nothing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from memtrace.hooks.fake.cuda.distributed import ease_data_parallel


def install(world_size: int) -> bool:
    """Make `init_process_group` start such a group. Return whether this torch can."""
    distributed: Any = torch.distributed
    if world_size == 1 or not distributed.is_available():
        return False
    try:
        from torch.testing._internal.distributed.fake_pg import FakeStore
    except ImportError:
        return False
    begin = distributed.init_process_group

    def init_process_group(*_args: Any, **_kwargs: Any) -> None:
        begin(backend="fake", rank=0, world_size=world_size, store=FakeStore())

    meshes: Any = import_module("torch.distributed.device_mesh")
    for module in (distributed, distributed.distributed_c10d, meshes):
        module.init_process_group = init_process_group
    ease_data_parallel()
    return True
