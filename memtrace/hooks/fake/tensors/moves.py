"""Where a call of `to` moves something: device, type and the rest, in all the forms in which a program may say it.

C++ takes a bare number for a device only where there is an accelerator, knows a fake tensor as one on "meta", and would
be given "meta" in the place of "cuda" by name; so the arguments are read here first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memtrace.hooks.fake.cuda.devices import is_number, named

Shown = Callable[[Any], torch.device]
"""Says which device a tensor is on, as the program has it."""

_parse = torch._C._nn._parse_to


def parsed_to(args: Any, kwargs: Any, shown: Shown) -> tuple[Any, Any, dict[str, Any]]:
    """Return device, dtype and the other arguments of `Tensor.to`."""
    rest = dict(kwargs)
    rest.pop("non_blocking", None)
    device, dtype, other = rest.pop("device", None), rest.pop("dtype", None), rest.pop("tensor", None)
    flags = []
    for one in args:
        if isinstance(one, torch.Tensor):
            other = one
        elif isinstance(one, torch.dtype):
            dtype = one
        elif isinstance(one, bool):
            flags.append(one)
        elif one is not None:
            device = one
    if len(flags) > 1:
        rest["copy"] = flags[1]
    if other is not None:
        device, dtype = shown(other), other.dtype
    if device is not None:
        device = named(device)
    return device, dtype, rest


def parse_module_to(args: Any, kwargs: Any, shown: Shown) -> tuple[Any, ...]:
    """Return what `torch._C._nn._parse_to` makes of the arguments of `Module.to`, with the device that is meant."""
    found: list[Any] = []
    for one in args:
        found += [shown(one), one.dtype] if isinstance(one, torch.Tensor) else [named(one) if is_number(one) else one]
    named_ones = dict(kwargs)
    other = named_ones.pop("tensor", None)
    if other is not None:
        named_ones |= {"device": shown(other), "dtype": other.dtype}
    if is_number(named_ones.get("device")):
        named_ones["device"] = named(named_ones["device"])
    return tuple(_parse(*found, **named_ones))
