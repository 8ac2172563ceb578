"""Where a search for tensors begins: the variables of running calls, of the program's modules, and of Python itself."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from types import FrameType, ModuleType
from typing import Any

from memtrace.hooks.keepers.program_frames import is_program_file, variables_of
from memtrace.hooks.keepers.reach import Root


def roots(frames: list[FrameType], modules: Iterable[str]) -> Iterator[Root]:
    """Yield the variables of running calls, of modules by name, and what Python itself keeps."""
    # The program's own calls before those of libraries: of two names, that in the program tells more.
    ordered = sorted(frames, key=lambda frame: not is_program_file(frame.f_code.co_filename))
    for frame in ordered:
        variables = variables_of(frame)
        if variables:
            yield Root(variables, frame, frame.f_code.co_name)
    for name in modules:
        module = sys.modules.get(name)
        if isinstance(module, ModuleType):
            yield Root(vars(module), None, name)
    yield Root(_of_python(), None, "sys")


def _of_python() -> dict[str, Any]:
    """Return where Python itself keeps things for a program: the last error, and handlers of logs."""
    found: dict[str, Any] = {}
    for name in ("last_value", "last_exc", "last_traceback"):
        if hasattr(sys, name):
            found[f"sys.{name}"] = getattr(sys, name)
    for reference in list(getattr(logging, "_handlerList", ())):
        handler = reference()
        if handler is not None:
            found[f"logging.{type(handler).__name__}"] = handler
    return found
