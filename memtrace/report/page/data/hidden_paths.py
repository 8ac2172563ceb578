"""Leaving paths and source lines out of what is shown, for code that is confidential. Names of functions stay.

In: text, or a JSON value with texts in it. Out: the same without files and lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A frame: a path from a root may have spaces, any other has none, or it would be a sentence that names a line.
_FRAME = re.compile(r"^(?:(?:[~./\\]|[A-Za-z]:)[^(),;]*|[^\s(),;]+):\d+ (?P<function>\S.*)$", re.DOTALL)
_SOURCE = r"\.(?:py|pyx|ipynb|c|cc|cpp|cu|cuh|h|hpp|sh|so|json|gz|pickle|pkl|o)\b(?::\d+)?"
# A path from a root or a drive, or a file with the ending of a source, with or without folders and a line.
# The end of bold type, which figures have, is no path.
_PATH = re.compile(
    rf"(?<![^\s'\"(=,;<>])(?!(?<=<)/b>)(?:~|\.{{0,2}}|[A-Za-z]:)[/\\][^\s'\",;()<>]+|[^\s'\",;()<>=]+{_SOURCE}"
)
HIDDEN = "…"
"""What stands in place of a path."""


def hidden_source(value: Any) -> Any:
    """Return a JSON value in which no text names a file or a line.

    >>> hidden_source({"frame": "/home/me/train.py:7 forward", "note": "see train.py:7 at 3 GiB/s"})
    {'frame': 'forward', 'note': 'see … at 3 GiB/s'}
    >>> hidden_source("<b>peak 3 GiB</b>"), hidden_source("<a/train.py>"), hidden_source("</home/me>")
    ('<b>peak 3 GiB</b>', '<…>', '<…>')
    >>> hidden_source("It stays (made at train.py:7 run), 3 MiB."), hidden_source("/my code/train.py:7 run")
    ('It stays (made at … run), 3 MiB.', 'run')
    """
    if isinstance(value, str):
        frame = _FRAME.match(value)
        return _PATH.sub(HIDDEN, frame["function"] if frame else value)
    if isinstance(value, Mapping):
        return {key: hidden_source(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hidden_source(item) for item in value]
    return value
