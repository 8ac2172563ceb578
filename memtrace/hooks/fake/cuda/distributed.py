"""One of many ranks in a process: that of a process group whose collectives end at once and move nothing."""

from __future__ import annotations

import functools
import inspect
from importlib import import_module
from typing import Any

import torch

from memtrace.hooks.fake.cuda import objects, pipelines, whole_numbers
from memtrace.hooks.fake.cuda.told import Told
from memtrace.hooks.fake.events.storages import FakeMemory


def install(told: Told, memory: FakeMemory) -> bool:
    """Make `init_process_group` start such a group, of meta tensors. Return whether this torch can."""
    if not torch.distributed.is_available():
        return False
    try:
        # Importing it registers the collectives for meta tensors.
        import_module("torch.distributed._tools.fake_collectives")
    except ImportError:
        return False
    if not start_groups(told):
        return False
    for module in _beginners():
        module.is_nccl_available = lambda: True
    _ease_wrapped_tensors()
    _pause_for_shapes(memory)
    return True


def start_groups(told: Told) -> bool:
    """Make `init_process_group` start such a group, of any tensors. Return whether this torch can."""
    if not torch.distributed.is_available():
        return False
    try:
        from torch.testing._internal.distributed.fake_pg import FakeStore
    except ImportError:
        return False
    begin: Any = torch.distributed.init_process_group

    given = inspect.signature(begin)

    def init_process_group(*args: Any, **kwargs: Any) -> None:
        told.is_rank(given.bind_partial(*args, **kwargs).arguments.get("rank"))
        begin(backend="fake", rank=told.rank, world_size=told.world_size, store=FakeStore())
        if told.world_size > 1:
            pipelines.install(told)

    for module in _beginners():
        module.init_process_group = init_process_group
    _flatten_gathers()
    objects.install(told, _beginners()[:2])
    whole_numbers.install(told, _beginners()[:2])
    _ease_data_parallel()
    return True


def _flatten_gathers() -> None:
    """Give collectives on one tensor flat ones, as NCCL takes them: such a group divides by the first dimension.

    Synchronized batch norm gathers into one row.
    """
    for module in _beginners()[:2]:
        for name in _ON_ONE_TENSOR:
            if hasattr(module, name):
                setattr(module, name, _flat(getattr(module, name)))


_ON_ONE_TENSOR = (
    "all_gather_into_tensor",
    "all_gather_single",
    "_all_gather_base",
    "reduce_scatter_tensor",
    "reduce_scatter_single",
    "_reduce_scatter_base",
)


def _flat(collective: Any) -> Any:
    @functools.wraps(collective)
    def call(*args: Any, **kwargs: Any) -> Any:
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
        if all(type(one) in (torch.Tensor, torch.nn.Parameter) and one.is_contiguous() for one in tensors):
            args = tuple(map(_flattened, args))
            kwargs = {name: _flattened(one) for name, one in kwargs.items()}
        return collective(*args, **kwargs)

    return call


def _flattened(one: Any) -> Any:
    return one.detach().view(-1) if isinstance(one, torch.Tensor) else one


def _beginners() -> tuple[Any, ...]:
    """Return the modules that begin process groups: a mesh of devices does so itself, where the program did not."""
    distributed: Any = torch.distributed
    return distributed, distributed.distributed_c10d, import_module("torch.distributed.device_mesh")


def _pause_for_shapes(memory: FakeMemory) -> None:
    """Count nothing while DTensor asks a fake mode of torch's own which shapes an operator makes of whole tensors."""
    mode: Any = import_module("torch._subclasses").FakeTensorMode
    enter, leave = mode.__enter__, mode.__exit__
    depth = 0

    def entered(self: Any) -> Any:
        nonlocal depth
        depth, memory.is_paused = depth + 1, True
        return enter(self)

    def left(self: Any, *error: Any) -> Any:
        nonlocal depth
        depth -= 1
        memory.is_paused = depth > 0
        return leave(self, *error)

    mode.__enter__, mode.__exit__ = entered, left


def _ease_wrapped_tensors() -> None:
    """Give shells (DTensors, nested tensors) the device of what they wrap, and FSDP the accelerator that C++ lacks."""
    tensor, internal = torch.Tensor, torch._C
    make = tensor._make_wrapper_subclass

    def make_wrapper_subclass(*args: Any, **kwargs: Any) -> Any:
        kwargs = {name: _without_gpu(one) for name, one in kwargs.items()}
        return make(*map(_without_gpu, args), **kwargs)

    setattr(tensor, "_make_wrapper_subclass", staticmethod(make_wrapper_subclass))  # noqa: B010 (typed as a method)
    setattr(internal, "_get_accelerator", lambda *_args: torch.device("cuda"))  # noqa: B010 (typed as a function)


def _without_gpu(value: Any) -> Any:
    """Return an argument as C++ may have it: a device of which it knows nothing is `meta`."""
    is_gpu = (isinstance(value, torch.device) and value.type == "cuda") or (
        isinstance(value, str) and value.startswith("cuda")
    )
    return torch.device("meta") if is_gpu else value


def _ease_data_parallel() -> None:
    """Let DistributedDataParallel start without comparing ranks, and end each bucket's reduction at once."""
    wrapped: Any = import_module("torch.nn.parallel.distributed")
    for name in ("_verify_param_shape_across_processes", "_sync_module_states"):
        if hasattr(wrapped, name):
            setattr(wrapped, name, lambda *_args, **_kwargs: None)
    parallel = wrapped.DistributedDataParallel
    init = parallel.__init__

    def reduced(_state: Any, bucket: Any) -> Any:
        future: Any = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    # torch compares annotations with its own classes, so that they may not be strings.
    reduced.__annotations__ = {}

    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.register_comm_hook(None, reduced)

    parallel.__init__ = start
