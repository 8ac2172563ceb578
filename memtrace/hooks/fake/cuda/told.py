"""What ranks tell each other, where one runs at a time: each leaves what it sends in a folder, for those after it.

What a rank asks for and nobody left ends the program, and the ranks that would have told it are written down: the
launcher runs them first, and then this one again.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from memtrace.hooks.fake.events.assumptions import Assumptions
from memtrace.hooks.parts.as_imported import as_json, open_file, system
from memtrace.schema.options import PredictOptions
from memtrace.schema.predicted import ASKED_RANKS


class Told:
    """The rank that runs, and what it tells and is told. Messages of one kind are numbered, as ranks run alike."""

    def __init__(self, gpu: PredictOptions, assumptions: Assumptions) -> None:
        self.rank = gpu.rank
        self.world_size = gpu.world_size
        self.assumptions = assumptions
        self._folder = gpu.told_dir
        self._sent: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()

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
        if path is not None and (found := _read(path)):
            return found[0]
        if path is not None:
            with suppress(OSError), open_file(os.path.join(self._folder or "", ASKED_RANKS), "w") as file:
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
