"""A process under changes, for tests: put in place, and taken off again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memtrace.hooks.changes.change import Changed
from memtrace.hooks.changes.survey import Survey
from memtrace.hooks.torch_side.guard import Guard
from memtrace.schema.changes import Changes
from memtrace.schema.options import SurveyOptions


class _File:
    """What a survey writes, kept."""

    def __init__(self) -> None:
        self.written = b""

    def append(self, data: bytes, *, size_before: int) -> None:
        self.written += data

    def close(self) -> None:
        return None


@contextmanager
def changed(torch: Any, changes: Changes) -> Iterator[list[str]]:
    """Change this process; what it is warned of is in the list."""
    warned: list[str] = []
    guard = Guard(lambda _, message: warned.append(message), torch.compiler.is_compiling)
    made = Changed(torch, changes, None, guard, lambda _, message: warned.append(message))
    made.install()
    try:
        yield warned
    finally:
        made.finish()


NOTHING = Changes()
PLAINLY = SurveyOptions(folder="")


@contextmanager
def surveyed(torch: Any, changes: Changes = NOTHING, options: SurveyOptions = PLAINLY) -> Iterator[dict[str, Any]]:
    """Survey this process; afterwards the document is in the dictionary."""
    file: Any = _File()
    warned: list[str] = []
    guard = Guard(lambda _, message: warned.append(message), torch.compiler.is_compiling)
    survey = Survey(torch, options, file, None)
    made = Changed(torch, changes, survey, guard, lambda _, message: warned.append(message))
    document: dict[str, Any] = {}
    made.install()
    try:
        yield document
    finally:
        made.finish()
        document.update(json.loads(file.written), warned=warned)
