"""Rows that were noted in a step before it was known that it had ended: they are of the next one.

In: the steps of the main part, and the chunks. Affects: steps and numbers of microbatches in the chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memtrace.schema.records import NEXT_FROM, Record
from memtrace.schema.tables import OWNERS, PHASES, REPLICA_FORWARDS, SAVED, SCOPES
from memtrace.store.columns import Array, IntArray
from memtrace.store.parts.chunk import Chunk

_TIME_OF = {
    PHASES.name: "start_ns",
    SCOPES.name: "start_ns",
    OWNERS.name: "time_ns",
    SAVED.name: "time_ns",
    REPLICA_FORWARDS.name: "time_ns",
}
"""Tables whose rows have a step, and the column that says when."""


def bring_to_next_step(steps: Sequence[Record], chunks: Sequence[Chunk]) -> None:
    """Give each row and chunk the step that it turned out to be of."""
    late = _Late(steps)
    if not late.first_ns:
        return
    for chunk in chunks:
        number, start_ns = chunk.fact("step"), chunk.fact("start_ns")
        if number is not None and start_ns is not None and start_ns >= late.first_ns.get(number, start_ns + 1):
            chunk.facts = {**chunk.facts, "step": number + 1}
        for table, time in _TIME_OF.items():
            for columns in chunk.tables.get(table, ()):
                late.bring(columns, columns[time])


class _Late:
    """Steps whose end was known late."""

    def __init__(self, steps: Sequence[Record]) -> None:
        self.first_ns: dict[int, int] = {}
        """By number of the step, when the next one may have begun."""
        self._first_microbatch: dict[int, int] = {}
        for record in steps:
            number, first_ns, microbatch = (record.get(name) for name in ("step", *NEXT_FROM))
            if isinstance(number, int) and isinstance(first_ns, int):
                self.first_ns[number] = first_ns
                self._first_microbatch[number] = microbatch if isinstance(microbatch, int) else 0

    def bring(self, columns: dict[str, Array], time_ns: IntArray) -> None:
        """Change the columns of one table."""
        step = columns["step"].copy()
        for number in np.unique(step).tolist():
            moved = (columns["step"] == number) & (time_ns >= self.first_ns.get(number, np.iinfo(np.int64).max))
            step[moved] = number + 1
            if "microbatch" in columns:
                microbatch = columns["microbatch"].copy()
                microbatch[moved] = np.maximum(microbatch[moved] - self._first_microbatch.get(number, 0), 0)
                columns["microbatch"] = microbatch
        columns["step"] = step
