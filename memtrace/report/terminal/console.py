"""Where text goes: the width and the colours of a terminal, and characters that its encoding has.

In: renderables of rich. Out: text in a file. `NO_COLOR` and a terminal without colours are rich's to heed.
"""

from __future__ import annotations

from io import StringIO
from typing import IO

from rich.console import Console, RenderableType

MAX_WIDTH = 100
"""A terminal can be wider than a table reads well."""
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("─━", "-"),
        **{"█": "#", "▓": "=", "▒": "+", "░": "-", "▚": "%", "▪": "o", "▫": "'", "▱": "_", "═": "~", "·": "."},
        **{"┃": "|", "✗": "x", "✓": "v", "…": "~"},
    }
)
"""What stands for what an encoding such as ASCII does not have."""


def print_to(file: IO[str], body: RenderableType) -> None:
    """Print to a file, in the colours and the width of a terminal if it is one."""
    console = Console(file=file, highlight=False, markup=False, emoji=False, legacy_windows=False)
    console.width = width_of(console)
    with console.capture() as captured:
        console.print(body)
    file.write(_encodable(_without_trailing_space(captured.get()), getattr(file, "encoding", None) or "utf-8"))


def width_of(console: Console) -> int:
    """Return how wide text is: as a terminal, up to where lines read well."""
    return min(console.width, MAX_WIDTH) if console.is_terminal else MAX_WIDTH


def terminal_width(file: IO[str]) -> int:
    """Return how wide text to a file is."""
    return width_of(Console(file=file, legacy_windows=False))


def as_text(body: RenderableType, *, width: int) -> str:
    """Return plain text of a width, without colour."""
    options = {"highlight": False, "markup": False, "emoji": False, "legacy_windows": False}
    console = Console(file=StringIO(), width=width, color_system=None, **options)  # type: ignore[arg-type]
    with console.capture() as captured:
        console.print(body)
    return _without_trailing_space(captured.get())


def _without_trailing_space(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _encodable(text: str, encoding: str) -> str:
    """Return text that an encoding has every character of.

    >>> _encodable("█▓ 1.5 MiB … ✓ µ", "ascii")
    '#= 1.5 MiB ~ v ?'
    """
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    return text
