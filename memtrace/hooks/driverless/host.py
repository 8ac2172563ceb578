"""What a prediction spares the host, and what would decide by values: first weights, gradient scalers, saved files."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import torch

_SMALL_BYTES = 1 << 20
"""Tensors up to this size get their first values: what is larger is not kept on the device anyway."""
_FIRST_VALUES = (
    "uniform_ normal_ trunc_normal_ constant_ ones_ zeros_ eye_ dirac_ xavier_uniform_ xavier_normal_ "
    "kaiming_uniform_ kaiming_normal_ orthogonal_ sparse_"
)
Place = Callable[[Any], Any]


def spare_first_values() -> None:
    """Leave large tensors of the host without first values: nobody reads them, and they then take no memory there."""
    module: Any = torch.nn.init
    for name in _FIRST_VALUES.split():
        if hasattr(module, name):
            setattr(module, name, _sparing(getattr(module, name)))


def _sparing(fill: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fill)
    def filled(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        is_plain = isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
        if is_plain and tensor.numel() * tensor.element_size() > _SMALL_BYTES:
            return tensor
        return fill(tensor, *args, **kwargs)

    return filled


def step_scaled() -> None:
    """Let a gradient scaler step whatever its flags say: an overflow would skip what is to be seen."""
    scaler: Any = torch.amp.GradScaler

    def step(_self: Any, optimizer: Any, _state: Any, *args: Any, **kwargs: Any) -> Any:
        return optimizer.step(*args, **kwargs)

    scaler._maybe_opt_step = step


def keep_history() -> None:
    """Let the program's calls of torch's memory history do nothing: they would end that of the prediction."""
    memory: Any = torch.cuda.memory

    @functools.wraps(memory._record_memory_history)
    def record(*_args: Any, **_kwargs: Any) -> None:
        return None

    memory._record_memory_history = record


def compute_all() -> None:
    """Let an encoder in evaluation compute all of its batch: else it packs it, by the flags of a mask."""
    torch.backends.mha.set_fastpath_enabled(False)


def redirect_torch_files(read: Place, written: Place) -> None:
    """Send what `torch.save` and profiles write, which C++ opens, to where files of the program go."""
    module: Any = torch
    save, load = module.save, module.load

    @functools.wraps(save)
    def saved(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        save(obj, written(f) if _is_path(f) else f, *args, **kwargs)

    @functools.wraps(load)
    def loaded(f: Any, *args: Any, **kwargs: Any) -> Any:
        return load(read(f) if _is_path(f) else f, *args, **kwargs)

    for target in (module, module.serialization):
        target.save, target.load = saved, loaded
    profiler: Any = torch.autograd.profiler.profile
    export = profiler.export_chrome_trace
    profiler.export_chrome_trace = lambda self, path, *args: export(self, written(path), *args)


def _is_path(one: Any) -> bool:
    return isinstance(one, (str, os.PathLike))
