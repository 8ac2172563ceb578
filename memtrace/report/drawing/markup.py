"""What every page is made with: texts made visible, templates filled, scripts and styles named by their hashes."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from typing import Any

from memtrace.printable import in_page

# XML 1.0 has no way to write these, escaped or not.
_NOT_XML = re.compile("[\ufffe\uffff]")
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def visible(value: Any) -> Any:
    """Return a JSON value in which no text holds a character that acts instead of being seen.

    >>> visible({"name": "\\x1b[31mred"})
    {'name': '\\\\x1b[31mred'}
    """
    if isinstance(value, str):
        return in_page(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): visible(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [visible(item) for item in value]
    return value


def escaped_text(text: str) -> str:
    r"""Return a text for XML, also within an attribute.

    >>> escaped_text("a<b & \"c\" \ufffe")
    'a&lt;b &amp; &quot;c&quot; \ufffd'
    """
    return html.escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", in_page(text)))


def filled(template: str, texts: Mapping[str, str]) -> str:
    """Return a template with its places filled, in one pass, so that filled-in text is never searched for places."""
    return _PLACE.sub(lambda match: texts[match[1]], template)


def source_hash(text: str) -> str:
    """Return how a content security policy names the one script or style sheet with this text."""
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"
