"""What every page is made with: texts made visible, templates filled, scripts and styles named by their hashes."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

_PLACE = re.compile(r"\{\{(\w+)\}\}")
# Controls would act on a terminal into which the page is copied, direction marks would turn text round: both are shown.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(value: Any) -> Any:
    """Return a JSON value in which no text holds a character that acts instead of being seen.

    >>> visible({"name": "\\x1b[31mred"})
    {'name': '\\\\x1b[31mred'}
    """
    if isinstance(value, str):
        return _INVISIBLE.sub(
            lambda match: match[0].encode("unicode_escape", "backslashreplace").decode("ascii"), value
        )
    if isinstance(value, Mapping):
        return {visible(str(key)): visible(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [visible(item) for item in value]
    return value


def filled(template: str, texts: Mapping[str, str]) -> str:
    """Return a template with its places filled, in one pass, so that filled-in text is never searched for places."""
    return _PLACE.sub(lambda match: texts[match[1]], template)


def source_hash(text: str) -> str:
    """Return how a content security policy names the one script or style sheet with this text."""
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"
