"""What tells the processes of a run from each other and from those of another run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Process(Protocol):
    """What joining asks of a process of the run: of its trace, or of what was found in it."""

    @property
    def rank(self) -> int | None:
        """Global rank, or `None` outside a distributed run."""

    @property
    def source(self) -> str:
        """Where its trace came from."""

    @property
    def complete(self) -> bool:
        """Whether its recording ended in order."""

    @property
    def num_events(self) -> int:
        """Events in its trace."""

    @property
    def header(self) -> Mapping[str, Any]:
        """host, pid, start_ns, end_ns, world_size and original_path, those that were recorded."""
