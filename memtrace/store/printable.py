"""Names from strangers' files, made safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return the text with control characters shown as escapes, so that a terminal does not obey them.

    >>> printable("a\x1b[31mb\n")
    'a\\x1b[31mb\\n'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )
