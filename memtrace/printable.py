r"""Texts from strangers' files, made safe to show: names, paths and messages may hold what acts when printed.

An escape sequence moves a terminal's cursor or sets its title; a right-to-left mark turns the text behind it round.
Each way to show such characters stands here, and nothing else in memtrace decides which characters these are.

escaped     messages of errors, one line: `\x1b` is still told from `\x07`
clean       text drawn in columns: one character for each, so that widths stay
in_page     HTML and its data: line ends, tabs and all letters stay
encodable   JSON documents, read by programs: only what UTF-8 cannot hold is replaced
"""

from __future__ import annotations

import re

_ACTS_IN_PAGE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

LINES = "\n\t"
"""What a message of several lines keeps."""


def escaped(text: str) -> str:
    r"""Return the text with everything that does not print as an escape, also line ends.

    >>> escaped("a\x1b[31mb\n")
    'a\\x1b[31mb\\n'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def clean(text: str, *, keep: str = "") -> str:
    r"""Return the text with everything that does not print replaced, but for the characters to keep.

    >>> clean("blocks\x1b[2J.\u202e0\n"), clean("blocks\x1b[2J\n", keep="\n")
    ('blocks�[2J.�0�', 'blocks�[2J\n')
    """
    return "".join(char if char.isprintable() or char in keep else "\N{REPLACEMENT CHARACTER}" for char in text)


def in_page(text: str) -> str:
    r"""Return the text with controls, direction marks and lone surrogates as escapes.

    Controls would act on a terminal into which the page is copied.

    >>> in_page("\x1b[31mred\u202e\n")
    '\\x1b[31mred\\u202e\n'
    """
    return _ACTS_IN_PAGE.sub(lambda match: _escape(match[0]), text)


def encodable(text: str) -> str:
    r"""Return the text with lone surrogates replaced, which JSON cannot hold.

    >>> encodable("a\udc80b")
    'a?b'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
