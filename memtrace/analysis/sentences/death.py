"""How a run died, in a sentence: of which exception, signal or exit status, where in the program, and when.

In: the reports of all ranks, with the header facts of exception and exit status, and the reader's notes. Out: `Death`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

from memtrace.analysis.results.card import Death
from memtrace.analysis.results.report import Note, RankReport
from memtrace.schema.frames import own_frames, short_place
from memtrace.schema.names import Source

FAILURES = ("exception", "oom", "incomplete")
"""How a rank can fail: of ranks that stopped at the same step, what is likelier to be the cause comes first."""
_STOPS = frozenset({"SIGTERM", "SIGINT", "SIGHUP"})
"""Signals by which somebody asks a program to end."""
_OF_A_SHELL = 128
"""A shell reports a program that a signal ended by this much more than the signal's number."""
_MAX_MESSAGE = 120
_HOST_KILL = "host-kill-possible"


def failure_of(report: RankReport) -> str | None:
    """Return why a rank did not end in order: oom, exception or incomplete; `None` if it did."""
    if report.oom is not None and not report.oom.predicted:
        return "oom"
    if report.facts.get("exception") is not None:
        return "exception"
    return "incomplete" if report.source == Source.RECORDED.value and not report.complete else None


def last_ended_step(report: RankReport) -> int | None:
    """Return the last step that ended; `None` where none did."""
    return max((step.step for step in report.steps if step.end_ns is not None), default=None)


def first_failed(ranks: Sequence[RankReport]) -> RankReport | None:
    """Return the report of the rank that failed first, by steps; of its devices the one that was full."""
    failed = [
        ((last_ended_step(one) or 0), FAILURES.index(failure), one.rank or 0, one.oom is None, at)
        for at, one in enumerate(ranks)
        if (failure := failure_of(one)) is not None
    ]
    return ranks[min(failed)[-1]] if failed else None


def death_of(ranks: Sequence[RankReport], notes: Sequence[Note] = ()) -> Death | None:
    """Return how the run died; `None` where it ended in order, or where nothing says how it ended."""
    if not ranks:
        return None
    rank = first_failed(ranks) or ranks[0]
    status, exception = rank.facts.get("exit_status"), rank.facts.get("exception")
    status = status if isinstance(status, int) and not isinstance(status, bool) else None
    if isinstance(exception, Mapping) and isinstance(exception.get("type"), str):
        return _of_exception(rank, ranks, exception, status)
    if rank.oom is not None and not rank.oom.predicted:
        return None if was_caught(rank) else _death(rank, ranks, "oom", "ran out of memory", status=status)
    ended_by = None if status is None else _signal(status, is_certain=status < 0 or not rank.complete)
    if ended_by is not None:
        name = f"the signal {ended_by}" if status is not None and status < 0 else f"{ended_by} (exit status {status})"
        kind, verb = ("interrupt", "was stopped") if ended_by in _STOPS else ("signal", "was killed")
        return _death(rank, ranks, kind, f"{verb} by {name}", status=status, signal_name=ended_by, notes=notes)
    if status:
        return _death(rank, ranks, "exit", f"ended with exit status {status}", status=status, notes=notes)
    if failure_of(rank) == "incomplete":
        return _death(rank, ranks, "unfinished", "stopped without ending in order", status=status, notes=notes)
    return None


def was_caught(rank: RankReport) -> bool:
    """Return whether an out-of-memory was recorded and the program went on to its end."""
    return rank.complete and rank.facts.get("exit_status") == 0 and rank.facts.get("exception") is None


def _of_exception(
    rank: RankReport, ranks: Sequence[RankReport], exception: Mapping[str, Any], status: int | None
) -> Death:
    kind, message, where = str(exception["type"]), exception.get("message"), _own_line(exception.get("stack"))
    thread = exception.get("thread")
    at = "" if where is None else f" at {_place(where)}"
    said = _first_line(message)
    how = "exception", f"died of {kind}{at}"
    if thread is not None and status == 0:
        how = "thread", f"went on when its thread {thread} died of {kind}{at}"
    elif kind == "KeyboardInterrupt":
        how = "interrupt", f"was interrupted ({kind}){at}"
    text = message if isinstance(message, str) else None
    return _death(rank, ranks, *how, status=status, exception=kind, message=text, where=where, said=said)


def _death(
    rank: RankReport,
    ranks: Sequence[RankReport],
    kind: str,
    how: str,
    *,
    status: int | None,
    signal_name: str | None = None,
    exception: str | None = None,
    message: str | None = None,
    where: Mapping[str, Any] | None = None,
    said: str = "",
    notes: Sequence[Note] = (),
) -> Death:
    step, in_step = _moment(rank)
    when = "" if step is None else f" in step {step}" if in_step else f" after step {step}"
    if step == 0 or (step is None and rank.source == Source.RECORDED.value):
        when = " before the first step ended"
    several = rank.rank is not None and len({one.rank for one in ranks}) > 1
    who = f"Rank {rank.rank}" if several else "The run"
    end = "" if said.endswith((".", "!", "?")) else "."
    because = next((f" {note.message}" for note in notes if note.slug == _HOST_KILL), "")
    if not because and signal_name == "SIGKILL":
        because = " Nothing says who sent it; a host sends it when its memory runs out."
    return Death(
        kind=kind,
        exception=exception,
        message=message,
        where=where,
        step=step,
        in_step=in_step,
        rank=rank.rank if several else None,
        signal=signal_name,
        exit_status=status,
        sentence=f"{who} {how}{when}{f': {said}' if said else ''}{end}{because}",
    )


def _moment(rank: RankReport) -> tuple[int | None, bool]:
    """Return the step that did not end and true, else the last that did and false."""
    if rank.steps and rank.steps[-1].end_ns is None and rank.steps[-1].recorded:
        return rank.steps[-1].step, True
    return last_ended_step(rank), False


def _own_line(stack: Any) -> dict[str, Any] | None:
    """Return the innermost line of the program itself; of a library where the program has none in the stack."""
    by_text: dict[str, dict[str, Any]] = {}
    for frame in stack if isinstance(stack, Sequence) else ():
        if isinstance(frame, Mapping) and isinstance(frame.get("file"), str) and isinstance(frame.get("line"), int):
            one = {"file": frame["file"], "line": frame["line"], "function": frame.get("function")}
            by_text.setdefault(f"{one['file']}:{one['line']} {one['function'] or ''}".rstrip(), one)
    own = own_frames(list(by_text))
    return by_text[own[0]] if own else None


def _place(where: Mapping[str, Any]) -> str:
    return short_place(f"{where['file']}:{where['line']}")


def _first_line(message: Any) -> str:
    """Return the first sentence or two of a message, which may be pages long."""
    lines = str(message).strip().splitlines() if isinstance(message, str) else []
    first = lines[0].strip() if lines else ""
    if len(first) <= _MAX_MESSAGE:
        return first
    whole = first[:_MAX_MESSAGE].rpartition(". ")[0]
    # Whole sentences, where there is one; words that break off read as if something were wrong with the message.
    return f"{whole}." if whole else first[: _MAX_MESSAGE - 1].rstrip() + "…"


def _signal(status: int, *, is_certain: bool) -> str | None:
    """Return the signal that an exit status stands for.

    >>> _signal(-9, is_certain=True), _signal(137, is_certain=True), _signal(137, is_certain=False)
    ('SIGKILL', 'SIGKILL', None)
    """
    number = -status if status < 0 else status - _OF_A_SHELL
    if number <= 0 or (status > 0 and not is_certain):
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}" if status < 0 else None
