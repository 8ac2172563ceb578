"""What ranks tell each other, where one runs at a time: each leaves what it sends in a folder, for those after it.

What a rank asks for and nobody left ends the program, and the ranks that would have told it are written down: the
launcher runs them first, and then this one again.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from memtrace.hooks.fake.events.assumptions import Assumptions
from memtrace.hooks.parts.as_imported import as_json, open_file, system
from memtrace.schema.options import PredictOptions
from memtrace.schema.predicted import ASKED_RANKS, RAN


class Told:
    """The rank that runs, and what it tells and is told. Messages of one kind are numbered, as ranks run alike."""

    def __init__(self, gpu: PredictOptions, assumptions: Assumptions, known: Callable[[Any], Any]) -> None:
        """`known` returns the values of a tensor of a device, on the host; `None` where nobody knows them."""
        self.rank = self._asked_rank = gpu.rank
        self.world_size = gpu.world_size
        self.assumptions = assumptions
        self.known = known
        self._folder = gpu.told_dir
        self._sent: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()

    def is_rank(self, given: Any) -> None:
        """Take note of the rank that the program says it is: each process that it starts itself is another."""
        if isinstance(given, int) and 0 <= given < self.world_size:
            self.rank = given

    def facts(self) -> dict[str, Any]:
        """Return the header field that says which rank it was, where that is not the one that was asked for."""
        return {"rank": self.rank} if self.rank != self._asked_rank else {}

    def tell(self, kind: str, message: Any) -> None:
        """Leave the next message of a kind; one that cannot be written down is not told."""
        path = self._path(kind, self._sent)
        if path is not None:
            with suppress(Exception):
                text = pickle.dumps(message)
                with open_file(path + ".new", "wb") as file:
                    file.write(text)
                system.replace(path + ".new", path)

    def next_of(self, kind: str, tellers: Iterable[int], otherwise: str) -> Any:
        """Return the next message of a kind. Nobody left one: end the program, and say why by `otherwise`.

        `tellers` are the ranks to run before, in order.
        """
        path = self._path(kind, self._asked)
        found = [] if path is None else _read(path)
        if found:
            return found[0]
        self._ask(tellers, otherwise)

    def next_if_told(self, kind: str, teller: int, otherwise: str) -> Any:
        """Return the next message of a kind; `None` where the rank that would have left it has run, or cannot."""
        path = self._path(kind, self._asked)
        if path is None:
            return None
        found = _read(path)
        if not found and not os.path.exists(os.path.join(os.path.dirname(path), f"{RAN}{teller}")):
            self._ask((teller,), otherwise)
        return found[0] if found else None

    def _ask(self, tellers: Iterable[int], otherwise: str) -> NoReturn:
        """End the program; the launcher is told which ranks are to run before it does again."""
        if self._folder is not None:
            with suppress(OSError), open_file(os.path.join(self._folder, ASKED_RANKS), "w") as file:
                file.write(as_json([one for one in tellers if one != self.rank]))
        self.assumptions.refuse(f"{otherwise}, and only rank {self.rank} is predicted")

    def _path(self, kind: str, counts: Counter[str]) -> str | None:
        counts[kind] += 1
        name = hashlib.sha256(f"{kind} {counts[kind]}".encode()).hexdigest()
        return None if self._folder is None else os.path.join(self._folder, name)


def _read(path: str) -> list[Any]:
    """Return the message of a file; nothing where there is none."""
    try:
        with open_file(path, "rb") as file:
            return [pickle.loads(file.read())]
    except (OSError, pickle.PickleError, EOFError, AttributeError, ImportError):
        return []
