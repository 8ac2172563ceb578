"""The shape of a tensor as text: `8x128x384`, and empty for a scalar, which has no dimension."""

from __future__ import annotations

import math
from collections.abc import Iterable

_MAX_DIGITS = 18
"""A length with more digits is none of a tensor's, and would take long to read."""
_MAX_ELEMENTS = 2**50
"""More than any tensor has: what claims to be larger is damaged, and would not fit 64 bits as bytes."""


def shape_text(shape: Iterable[int]) -> str:
    """Return a shape as memtrace writes it.

    >>> shape_text((768, 3072)), shape_text(())
    ('768x3072', '')
    """
    return "x".join(map(str, shape))


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Return a shape as numbers; `None` where it was not recorded or is none.

    >>> parse_shape("8x128"), parse_shape(""), parse_shape(None), parse_shape("8xs0")
    ((8, 128), (), None, None)
    """
    if text is None:
        return None
    parts = text.split("x") if text else []
    if not all(part.isdecimal() and len(part) <= _MAX_DIGITS for part in parts):
        return None
    shape = tuple(map(int, parts))
    return shape if math.prod(shape) <= _MAX_ELEMENTS else None
