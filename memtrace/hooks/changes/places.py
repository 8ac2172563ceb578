"""Where in its own files a program makes an optimizer or clears gradients, so that changes can be written there."""

from __future__ import annotations

import os
import sys
import weakref
from typing import Any

from memtrace.hooks.ownership.module_tree import modules_in
from memtrace.schema.frames import WRAPPER_FILE

_INSTALLED = ("site-packages", "dist-packages")
_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def frame_of_program(torch: Any) -> Any:
    """Return the innermost frame outside torch and memtrace; `None` if that is no file of the program's own."""
    inside = os.path.dirname(torch.__file__), _OURS
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(inside) and name != WRAPPER_FILE:
            break
        frame = frame.f_back
    if frame is None or any(one in frame.f_code.co_filename for one in _INSTALLED):
        return None
    return frame if os.path.isfile(frame.f_code.co_filename) else None


class Places:
    """Lines of the program, kept until the model that trains is known."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._made: list[tuple[str, int, str, list[tuple[str, weakref.ref[Any]]]]] = []
        self._named: dict[int, str] = {}
        self._fills: set[tuple[str, int]] = set()

    def optimizer(self, optimizer: Any) -> None:
        """Take note of the line that makes an optimizer, and of the models that it could name there."""
        frame = frame_of_program(self._torch)
        if frame is not None:
            models = [
                (name, weakref.ref(value))
                for name, value in list(frame.f_locals.items())
                if isinstance(value, self._torch.nn.Module)
            ]
            self._made.append((_path(frame), frame.f_lineno, type(optimizer).__name__, models))

    def fill(self) -> None:
        """Take note of the line that fills gradients with zeros."""
        frame = frame_of_program(self._torch)
        if frame is not None:
            self._fills.add((_path(frame), frame.f_lineno))

    def look(self, root: Any) -> None:
        """Find the variables that hold the model whose modules are named by their paths, while it is there.

        When a program has ended, what was made in its functions is gone.
        """
        for at, (_, _, _, models) in enumerate(self._made):
            if at not in self._named and (name := _named(root, models)) is not None:
                self._named[at] = name

    def facts(self) -> dict[str, Any]:
        """Return what was noted, with the variables that were found."""
        return {
            "optimizers": [
                [path, line, kind, self._named.get(at)] for at, (path, line, kind, _) in enumerate(self._made)
            ],
            "fills": sorted(self._fills),
        }


def _named(root: Any, models: list[tuple[str, weakref.ref[Any]]]) -> str | None:
    """Return how the program can say which module is the root: a variable, or what is inside that of another."""
    known = [(name, module) for name, one in models if (module := one()) is not None]
    for name, module in known:
        if module is root:
            return name
    for name, module in known:
        path = next((path for path, inner in modules_in(module) if inner is root), None)
        if path is not None:
            return f'{name}.get_submodule("{path}")'
    return None


def _path(frame: Any) -> str:
    return os.path.abspath(str(frame.f_code.co_filename))
