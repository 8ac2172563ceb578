"""The string table while a trace is built: each distinct text once, columns hold its number."""

from __future__ import annotations

from collections.abc import Iterable

from memtrace.errors import TraceReadError
from memtrace.printable import encodable
from memtrace.store.columns import NULL


class StringTable:
    """Gives every distinct text an id, in the order of first use. Lone surrogates are replaced: JSON has none."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._ids: dict[str, int] = {}
        for text in texts:
            self.id(text)

    def id(self, text: object) -> int:
        """Return the id of a text; `None` is null.

        Raises:
            TraceReadError: the value is not a text.
        """
        if text is None:
            return NULL
        if not isinstance(text, str):
            raise TraceReadError(f"a text was expected where the file holds {type(text).__name__}")
        found = self._ids.get(text)
        if found is None:
            found = self._ids.setdefault(encodable(text), len(self._ids))
        return found

    def __len__(self) -> int:
        return len(self._ids)

    def texts(self) -> tuple[str, ...]:
        """Return the texts by id."""
        return tuple(self._ids)
