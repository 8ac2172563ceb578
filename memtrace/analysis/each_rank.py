"""One question asked of every rank of a run: a damaged rank must not cost the others.

In: `Trace`, a question. Out: the answers, and a warning for each rank without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from memtrace.errors import MemtraceError
from memtrace.store.trace import LoadWarning, RankTrace, Trace, rank_left_out

Answer = TypeVar("Answer")


def of_each_rank(trace: Trace, ask: Callable[[RankTrace], Answer]) -> tuple[list[Answer], list[LoadWarning]]:
    """Return what is found of each rank, and a warning that names each rank that is left out, and why.

    Raises:
        Exception: what the first rank came to, where none has an answer.
    """
    answers: list[Answer] = []
    left_out: list[LoadWarning] = []
    first_error: Exception | None = None
    for at, rank in enumerate(trace.ranks):
        try:
            answers.append(ask(rank))
        except Exception as error:
            first_error = first_error or error
            why = error.message if isinstance(error, MemtraceError) else f"{type(error).__name__}: {str(error)!r}"
            left_out.append(rank_left_out(rank.rank, at, f"could not be analysed ({why})"))
    if first_error is not None and not answers:
        raise first_error
    return answers, left_out
