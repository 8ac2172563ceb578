"""What each convolution of a program may take of cuDNN's scratch, and how full the device is while it runs.

A convolution is a layer by the module that asks for it, and the line where none does; its backward is known by the
weight that it was given. When it first ran tells later which module that was.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from time import time_ns
from types import FrameType
from typing import Any

import torch

from memtrace.hooks.fake.events.assumptions import TORCH_FOLDER

_MOST_LAYERS = 1000
_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep


class _Layer:
    """One convolution: when it ran first, the most scratch of a call, and the fullest that the device was with it."""

    __slots__ = ("_module", "level_bytes", "time_ns", "workspace_bytes")

    def __init__(self, module: torch.nn.Module | None) -> None:
        self._module = None if module is None else weakref.ref(module)
        self.time_ns = time_ns()
        self.workspace_bytes = 0
        self.level_bytes = 0

    def is_of(self, module: torch.nn.Module | None) -> bool:
        """Return whether this module asked for it: another may lie where one lay that is gone."""
        return module is None or (self._module is not None and self._module() is module)

    def facts(self) -> dict[str, int]:
        """Return the fields of it."""
        return {"time_ns": self.time_ns, "workspace_bytes": self.workspace_bytes, "level_bytes": self.level_bytes}


class Convolutions:
    """The layers so far."""

    def __init__(self, allocated: Callable[[], int], address: Callable[[Any], int]) -> None:
        """`allocated` says how many bytes are allocated now; `address` where a tensor lies."""
        self._allocated = allocated
        self._address = address
        self._layers: list[_Layer] = []
        self._by_caller: dict[tuple[int, str, int], _Layer] = {}
        self._by_weight: dict[int, _Layer] = {}

    def forward(self, weight: Any, num_bytes: int) -> None:
        """Take note of a convolution that may take so many bytes."""
        module, file, line = _caller()
        key = (0 if module is None else id(module)), file, line
        layer = self._by_caller.get(key)
        if layer is None or not layer.is_of(module):
            if len(self._layers) >= _MOST_LAYERS:
                return
            layer = self._by_caller[key] = _Layer(module)
            self._layers.append(layer)
        self._by_weight[self._address(weight)] = layer
        self._took(layer, num_bytes)

    def backward(self, weight: Any, num_bytes: int) -> None:
        """Take note of its backward, whose kernels may take so many."""
        layer = self._by_weight.get(self._address(weight))
        if layer is not None:
            self._took(layer, num_bytes)

    def _took(self, layer: _Layer, num_bytes: int) -> None:
        layer.workspace_bytes = max(layer.workspace_bytes, num_bytes)
        layer.level_bytes = max(layer.level_bytes, self._allocated() + num_bytes)

    def facts(self) -> dict[str, Any]:
        """Return the header field that tells of them; nothing where there is none."""
        found = [one.facts() for one in self._layers]
        return {"convolutions": found} if found else {}


def _caller() -> tuple[torch.nn.Module | None, str, int]:
    """Return the module whose forward asks for a convolution, if one does, and the line of the program or of it."""
    frame: FrameType | None = sys._getframe(1)
    file, line = "", 0
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OWN):
            module = frame.f_locals.get("self") if frame.f_code.co_name != "_call_impl" else None
            if isinstance(module, torch.nn.Module):
                return module, file, line
            if not file and not name.startswith(TORCH_FOLDER):
                file, line = name, frame.f_lineno
        frame = frame.f_back
    return None, file, line
