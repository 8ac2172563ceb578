"""How much of a trace is shown, and how a place is taken out of texts once the analysis no longer needs it.

A place without its name must still say whether it is the program's own, a library's or torch's, or other categories and
other lines would be reported. So a hidden file gets a name of its own while it is analysed, and `without_places` takes
it out of whatever was found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from hashlib import blake2b
from typing import Any, TypeVar, cast

HIDDEN = "…"
"""What stands in place of what is not shown."""
UNNAMED = "TRACE"
"""What a trace is called whose name is not shown, also in commands to type."""
LIBRARIES = ("site-packages/", "lib/python3/", "torch/", "memtrace/integrations/")
"""The folders that tell a library from the program."""

_HIDDEN_FILE = re.compile(rf"(?P<library>{'|'.join(LIBRARIES)})?hidden-(?P<optim>optim-)?[0-9a-f]{{16}}(?P<py>\.py)?")
_PLACE = rf"(?:{_HIDDEN_FILE.pattern.replace('?P<library>', '?:').replace('?P<optim>', '?:').replace('?P<py>', '?:')}"
_PLACE += r"|torch/[\w./+\-]+\.\w+)(?::\d+)?"
_TEXT = re.compile(rf"(?<![\w./\-]){_PLACE}")
# A frame ends with the name of a function, which has no spaces; a sentence that names a place goes on.
_FRAME = re.compile(rf"{_PLACE} (?P<function>[\w.<>]+)")

_T = TypeVar("_T")


class Redaction(str, Enum):
    """What is left out of what is shown or written."""

    NOTHING = "nothing"
    PERSONAL = "personal"
    """Host, user, arguments, values of the environment, messages of errors, and the folders of files."""
    SOURCE = "source"
    """All that, and names and lines of files."""


def hidden_file(file: str, *, library: str = "") -> str:
    """Return the name under which a file is analysed; it is the same wherever the file is met.

    >>> hidden_file("/home/me/train.py") == hidden_file("/home/me/train.py") != hidden_file("/home/me/model.py")
    True
    """
    # An optimizer of the program's own is known by its file.
    optim = "optim-" if "optim" in file.lower() else ""
    ending = ".py" if file.endswith(".py") or file.startswith("<ipython-input-") else ""
    return f"{library}hidden-{optim}{blake2b(file.encode('utf-8', 'replace'), digest_size=8).hexdigest()}{ending}"


def numbered_file(file: str, number: int) -> str:
    """Return the name under which a hidden file is written, `number` telling it from the others.

    >>> numbered_file(hidden_file("/home/me/train.py"), 3), numbered_file("torch/nn/functional.py", 3)
    ('source-3.py', 'torch/nn/functional.py')
    """
    found = _HIDDEN_FILE.fullmatch(file)
    if found is None:
        return file
    return f"{found['library'] or ''}{'optim-' if found['optim'] else ''}source-{number}{found['py'] or ''}"


def without_places(value: _T) -> _T:
    """Return a result, or a JSON value, in which no text has a file or a line; names of functions stay.

    >>> file = hidden_file("/home/me/train.py")
    >>> without_places({"frame": f"{file}:7 forward", "where": {"file": file, "line": 7, "function": "forward"}})
    {'frame': 'forward', 'where': {'file': None, 'line': None, 'function': 'forward'}}
    >>> without_places(f"It stays (made at {file}:7 run), 3 MiB."), without_places("torch/nn/functional.py:9 linear")
    ('It stays (made at … run), 3 MiB.', 'linear')
    """
    return cast("_T", _without_places(value))


def _without_places(value: Any) -> Any:
    if isinstance(value, str):
        if isinstance(value, Enum) or not ("hidden-" in value or "torch/" in value):
            return value
        frame = _FRAME.fullmatch(value)
        return frame["function"] if frame else _TEXT.sub(HIDDEN, value)
    if isinstance(value, Mapping):
        return _mapping_without_places(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_places, value))
    if is_dataclass(value) and not isinstance(value, type):
        changed = {one.name: _without_places(getattr(value, one.name)) for one in fields(value)}
        return replace(value, **changed)
    return value


def _mapping_without_places(value: Mapping[Any, Any]) -> dict[Any, Any]:
    shown = {key: _without_places(item) for key, item in value.items()}
    if "file" in shown and "line" in shown:
        shown |= {"file": None, "line": None}
    return shown
