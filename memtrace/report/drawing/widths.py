"""How wide a text is where letters have one width, and lists in words as far as there is room for them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable


def columns(text: str) -> int:
    """Return how wide a text is: letters of East Asia are two columns.

    >>> columns("abc"), columns("層a")
    (3, 3)
    """
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def whole_parts(words: str, room: int, width: Callable[[str], int] = columns) -> str:
    """Return a list in words as far as there is room: parts of it are left out whole, and none is cut in two.

    >>> whole_parts("one, two, three", 15), whole_parts("one, two, three", 12), whole_parts("one, two", 2)
    ('one, two, three', 'one, two, …', 'one, …')
    """
    parts = words.split(", ")
    if width(words) <= room:
        return words
    while len(parts) > 1 and width(", ".join((*parts, "…"))) > room:
        parts.pop()
    return ", ".join((*parts, "…")) if len(parts) < words.count(", ") + 1 else words
