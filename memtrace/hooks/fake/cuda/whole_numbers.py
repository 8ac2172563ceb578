"""Whole numbers that ranks send each other in tensors: they tell sizes, so they come from the sender's own run.

Others, such as weights, decide nothing and are taken as they lie. Messages within torch are left alone.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from typing import Any

import torch

from memtrace.hooks.fake.cuda.objects import Call
from memtrace.hooks.fake.cuda.told import Told
from memtrace.hooks.fake.events.assumptions import TORCH_FOLDER

_MOST_NUMBERS = 1 << 17


def install(told: Told, modules: Iterable[Any]) -> None:
    """Let `broadcast`, `send` and `recv` ask. Affects: `torch.distributed`, for the rest of the process."""
    for module in modules:
        for name in ("broadcast", "send", "recv"):
            setattr(module, name, _telling(getattr(module, name), told))


def _telling(exchange: Any, told: Told) -> Any:
    @functools.wraps(exchange)
    def call(*args: Any, **kwargs: Any) -> Any:
        out = exchange(*args, **kwargs)
        if not sys._getframe(1).f_code.co_filename.startswith(TORCH_FOLDER):
            made = Call(exchange, args, kwargs)
            if made.is_shared and _is_of_whole_numbers(made.given["tensor"]):
                _exchanged(exchange.__name__, made, told)
        return out

    return call


def _is_of_whole_numbers(one: Any) -> bool:
    return (
        type(one) is torch.Tensor and not (one.is_floating_point() or one.is_complex()) and one.numel() <= _MOST_NUMBERS
    )


def _exchanged(name: str, made: Call, told: Told) -> None:
    """Leave the numbers where this rank sends them, and fill them in where it receives them."""
    one, end = made.given["tensor"], "dst" if name == "send" else "src"
    peer = made.peer(end)
    if peer is None:
        return
    source, target = (told.rank, peer) if name == "send" else (peer, told.rank)
    kind = f"numbers {made.ranks} from {source}" + ("" if name == "broadcast" else f" to {target}")
    if source == told.rank:
        known = one if one.device.type == "cpu" else told.known(one)
        told.tell(kind, None if known is None else known.tolist())
        return
    found = told.next_if_told(kind, source, f"{name} asks for numbers of another rank")
    if found is None:
        told.assumptions.value(f"whole numbers that rank {source} sends were taken to be what the tensor held")
    else:
        one.copy_(torch.tensor(found, dtype=one.dtype))
